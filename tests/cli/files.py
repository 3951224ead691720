"""Files for the tests of commands."""

import numpy as np
import soundfile
from speech import RATE, whistle


def recording(path, text="ABE CAB", rate=RATE, channels=1, **settings):
    samples = whistle(text, rate=rate)
    soundfile.write(path, np.stack([samples] * channels, 1), rate, **settings)
    return path


def text_file(path):
    path.write_text("This is a text, whatever its name says.\n" * 20)

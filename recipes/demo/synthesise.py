"""Make the demo corpus: everyday commands spoken by espeak-ng and flite, in LibriSpeech layout.

    python recipes/demo/synthesise.py OUT [--seed 0] [--samples DIR]

The corpus comes ready-made in `recipes/demo/corpus`; run this only to change it. The parts are
`train`, `dev` (new sentences, training voices at other pitches and speeds) and `test` (new
sentences, new voices). The same seed gives the same sentences, voices and split; the bytes of the
audio depend on the versions of the three programs it calls: espeak-ng, flite and opusenc.
"""

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf

from las.errors import LASError

RATE = 16_000
MARGIN = RATE // 10  # silence kept on either side of the speech
BITRATE = 12  # kbit/s; below 11, Opus drops everything above 6 kHz
CHAPTER = 1

# Upper-case words stand for one of their alternatives, each as likely as the others.
GRAMMAR = {
    "COMMAND": "CALL | PLAY | SWITCH | LIGHT | SET | WEATHER | WAKE | NOT",
    "CALL": "call NAME | call NAME at TIME | call NAME on DAY | call NAME on DAY at HOUR",
    "PLAY": "play the ORDINAL song | play the ORDINAL song in the ROOM"
    " | play the ORDINAL song at TIME",
    "SWITCH": "turn the ROOM DEVICE STATE | turn STATE the ROOM DEVICE"
    " | turn the DEVICE STATE at TIME | is the ROOM THING STATE | is the THING in the ROOM STATE",
    "LIGHT": "set the ROOM lights to COLOUR | set the lights in the ROOM to COLOUR"
    " | turn the ROOM lights COLOUR | turn the lights COLOUR at TIME",
    "SET": "set a timer for NUMBER minutes | set the ROOM timer for NUMBER minutes"
    " | set the heater to NUMBER | set the ROOM heater to NUMBER",
    "WEATHER": "what's the weather in CITY | what's the weather in CITY on DAY"
    " | what's the weather in CITY at TIME | what's the weather on DAY at HOUR",
    "WAKE": "wake me at TIME | wake me on DAY at TIME",
    "NOT": "don't wake me on DAY | don't wake me at TIME | don't call NAME on DAY"
    " | don't call NAME at TIME | don't turn the ROOM DEVICE STATE",
    "NAME": "anna | david | mary | sarah | tom",
    "ROOM": "bedroom | garden | kitchen | office",
    "DEVICE": "lights | THING",
    "THING": "heater | radio",
    "STATE": "on | off",
    "COLOUR": "blue | green | red",
    "ORDINAL": "first | second | next | last",
    "DAY": "monday | tuesday | friday | sunday",
    "CITY": "boston | london | paris",
    "TIME": "HOUR | HOUR thirty | HOUR fifteen | HOUR twenty",
    "HOUR": "DIGIT | DIGIT | DIGIT | ten",
    "NUMBER": "DIGIT | TENS | TENS DIGIT | TENS DIGIT | fifteen",
    "TENS": "twenty | thirty",
    "DIGIT": "one | two | three | four | five | six | seven | eight | nine",
}

# espeak-ng: pitch 0-99, speed in words a minute. Accents and variants are both dealt round: 8 and
# 47 have no common divisor, so that each round gives a variant another accent.
ACCENTS = "en-us en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc"
TRAIN_VARIANTS = (
    "m1 m2 m4 m5 m6 m8 f1 f2 f4 f5 klatt klatt2 klatt3 Alex Alicia Andy Annie Denis Diogo Gene "
    "Hugo Mario Michael Nguyen Storm adam anika aunty belinda boris ed edward grandma grandpa "
    "gustave iven4 john marcelo max michel norbert pablo paul quincy rob robert travis"
)
# No variant of the test part, nor a near-twin (steph2, klatt5, ...), is heard in training.
TEST_VARIANTS = "m3 m7 f3 klatt4 Andrea Mike benjamin david linda shelby steph victor"
ESPEAK_PITCH, ESPEAK_SPEED = (25, 75), (160, 205)
# flite: pitch in Hz (rms has a model of its own and ignores it), speed as a stretch of durations.
FLITE_TRAIN = {"kal": (90, 130), "kal16": (90, 130), "awb": (105, 155), "slt": (145, 210)}
FLITE_TEST = {"rms": (0, 0)}
FLITE_STRETCH = (0.72, 0.95)
# flite has few voices: played a little faster or slower, they pass for more (not done in `test`).
FLITE_SCALE = (0.9, 1.12)

# Part -> (first speaker number, espeak-ng speakers, flite speakers, utterances of each speaker).
PARTS = {"train": (101, 94, 50, 9), "dev": (301, 10, 6, 5), "test": (501, 12, 4, 5)}
MAX_REPEATS = 2  # how often one sentence may be spoken in `train`; never twice elsewhere
SAMPLE_FORMATS = ("wav", "flac", "opus", "mp3", "ogg", "flac", "opus", "wav")


@dataclass(frozen=True)
class Speaker:
    """One voice at one pitch and speed, played `scale` times as fast; it speaks in one part."""

    number: int
    synthesiser: str
    voice: str
    pitch: int
    speed: float
    scale: float
    part: str

    def command(self, text: str, wav: Path) -> list[str]:
        """The command line that speaks `text` (lower case: espeak-ng spells "IT") into `wav`."""
        if self.synthesiser == "espeak-ng":
            voice = ["-v", self.voice, "-p", str(self.pitch), "-s", str(self.speed)]
            return ["espeak-ng", *voice, "-w", str(wav), text]
        settings = ["--setf", f"duration_stretch={self.speed}"]
        if self.pitch:
            settings += ["--setf", f"int_f0_target_mean={self.pitch}"]
        return ["flite", "-voice", self.voice, *settings, "-t", text, "-o", str(wav)]


@dataclass(frozen=True)
class Utterance:
    """One sentence, upper case, in the mouth of one speaker."""

    speaker: Speaker
    index: int
    text: str
    gain: float

    @property
    def name(self) -> str:
        """Identifier in the manner of LibriSpeech: speaker, chapter, utterance."""
        return f"{self.speaker.number}-{CHAPTER}-{self.index:04d}"

    @property
    def folder(self) -> Path:
        """Folder below the corpus."""
        return Path(self.speaker.part, str(self.speaker.number), str(CHAPTER))


def sentences(seed: int) -> Iterator[str]:
    """Endless upper-case sentences of the grammar, the same for the same seed, with repeats."""
    rng = random.Random(f"sentences {seed}")

    def expand(symbol: str) -> str:
        if symbol not in GRAMMAR:
            return symbol
        return " ".join(expand(word) for word in rng.choice(GRAMMAR[symbol].split(" | ")).split())

    while True:
        yield expand("COMMAND").upper()


def vocabulary() -> set[str]:
    """Every word that the grammar can yield, upper case."""
    words = {word for options in GRAMMAR.values() for word in options.split()}
    return {word.upper() for word in words - GRAMMAR.keys() - {"|"}}


def part_of(text: str, seed: int) -> str:
    """The one part that may hold a sentence: an even tenth of them each for `dev` and `test`."""
    lot = hashlib.sha256(f"{seed} {text}".encode()).digest()[0] % 10
    return {0: "test", 1: "dev"}.get(lot, "train")


def accented(variants: str, rounds: int) -> list[str]:
    """Every espeak-ng variant `rounds` times, with an accent each time, as `-v` takes them."""
    pairs = zip(cycle(ACCENTS.split()), variants.split() * rounds, strict=False)
    return [f"{accent}+{variant}" for accent, variant in pairs]


def speakers(seed: int) -> list[Speaker]:
    """The cast of every part; no voice of `test` occurs in `train` or `dev`."""
    rng = random.Random(f"speakers {seed}")
    cast = []
    for part, (first, espeak_count, flite_count, _) in PARTS.items():
        test = part == "test"
        pool = accented(TEST_VARIANTS, 1) if test else accented(TRAIN_VARIANTS, 2)
        for number, voice in enumerate(rng.sample(pool, espeak_count), first):
            pitch, speed = rng.randint(*ESPEAK_PITCH), rng.randint(*ESPEAK_SPEED)
            cast.append(Speaker(number, "espeak-ng", voice, pitch, speed, 1.0, part))
        flite = cycle((FLITE_TEST if test else FLITE_TRAIN).items())
        for number, (voice, pitches) in enumerate(islice(flite, flite_count), first + espeak_count):
            pitch = rng.randint(*pitches)
            scale = 1.0 if test else round(rng.uniform(*FLITE_SCALE), 2)
            stretch = round(rng.uniform(*FLITE_STRETCH) * scale, 2)
            cast.append(Speaker(number, "flite", voice, pitch, stretch, scale, part))
    return cast


def plan(seed: int) -> list[Utterance]:
    """Who says what: every speaker in turn takes the next sentences meant for its part."""
    rng = random.Random(f"plan {seed}")
    source, spoken = sentences(seed), Counter[str]()
    utterances = []
    for speaker in speakers(seed):
        limit = MAX_REPEATS if speaker.part == "train" else 1
        for index in range(PARTS[speaker.part][3]):
            text = next(s for s in source if part_of(s, seed) == speaker.part and spoken[s] < limit)
            spoken[text] += 1
            utterances.append(Utterance(speaker, index, text, rng.uniform(0.7, 1.4)))
    return utterances


def run(command: list[str], stdin: bytes | None = None) -> str:
    """What a program prints; LASError with its last words if it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise LASError(f"{command[0]} failed: {' '.join(reason)} (command: {' '.join(command)})")
    return done.stdout.decode(errors="replace")


def trim(audio: np.ndarray, gain: float) -> np.ndarray:
    """Leave 0.1 s of silence on either side and bring the peak of `audio` to 0.5 x gain."""
    audio = np.pad(audio, 2 * MARGIN)  # espeak-ng begins at once
    _, (start, end) = librosa.effects.trim(audio, top_db=35, frame_length=512, hop_length=128)
    audio = audio[start - MARGIN : end + MARGIN]
    return audio * (0.5 * gain / np.abs(audio).max())


def speak(utterance: Utterance, corpus: Path) -> None:
    """Synthesise one utterance to an Opus file of the corpus (16 kHz, mono)."""
    stem = corpus / utterance.folder / utterance.name
    wav = stem.with_suffix(".wav")
    run(utterance.speaker.command(utterance.text.lower(), wav))
    audio, rate = sf.read(wav, dtype="float32")
    wav.unlink()
    rate *= utterance.speaker.scale
    audio = trim(librosa.resample(audio, orig_sr=rate, target_sr=RATE), utterance.gain)
    pcm = (audio * 32767).round().astype("<i2").tobytes()
    # Not soundfile: its Opus files are a sixth larger at the same quality, and differ in a random
    # stream number each time. Frames of 60 ms and no comments save the rest.
    serial = utterance.speaker.number * 10_000 + utterance.index
    options = f"--quiet --speech --bitrate {BITRATE} --framesize 60 --serial {serial}"
    options += " --padding 0 --discard-comments --raw --raw-bits 16 --raw-chan 1 --raw-rate 16000"
    run(["opusenc", *options.split(), "-", str(stem.with_suffix(".opus"))], pcm)


def write_texts(utterances: list[Utterance], corpus: Path) -> None:
    """Write the transcripts of each speaker, and the table of voices (pitch `-`: its own)."""
    lines: dict[Path, str] = {}
    table = {0: "; id | synthesiser | voice | pitch | speed | scale | part\n"}
    for u in utterances:
        s, file = u.speaker, corpus / u.folder / f"{u.speaker.number}-{CHAPTER}.trans.txt"
        lines[file] = lines.get(file, "") + f"{u.name} {u.text}\n"
        row = (s.number, s.synthesiser, s.voice, s.pitch or "-", s.speed, s.scale, s.part)
        table[s.number] = " | ".join(map(str, row)) + "\n"
    lines[corpus / "SPEAKERS.TXT"] = "".join(table.values())
    for file, text in lines.items():
        file.write_text(text, encoding="ascii")


def write_readme(utterances: list[Utterance], corpus: Path, seed: int) -> None:
    """Describe the corpus in its own folder, with what was counted in the files."""
    rows = ""
    for part in PARTS:
        files = list((corpus / part).rglob("*.opus"))
        minutes = sum(sf.info(file).duration for file in files) / 60
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        cast = {u.speaker for u in utterances if u.speaker.part == part}
        voices = len({speaker.voice for speaker in cast})
        counts = f"{len(files)} | {minutes:.1f} | {len(cast)} | {voices} | {megabytes:.2f}"
        rows += f"| {part} | {counts} |\n"
    text = f"""# A small synthetic corpus of spoken commands
No human voice is in it: every utterance was spoken by a program (espeak-ng or flite). It is there
to train a recogniser in minutes and to test one; a model trained on it does not understand people.

| part | utterances | minutes | speakers | voices | MB |
|---|---|---|---|---|---|
{rows}
- Sentences come from a grammar of {len(vocabulary())} words. No sentence of one part is in another.
- A speaker is one voice at one pitch and speed, listed in `SPEAKERS.TXT`; flite also passes for
  more voices by being played `scale` times as fast. `dev` uses voices of `train` at other pitches
  and speeds; the espeak-ng variants and the flite voice of `test` are heard nowhere else.
- Layout: that of LibriSpeech, `PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.opus` and a
  `.trans.txt` in each folder. Audio: mono, 16 kHz, Opus at about {BITRATE} kbit/s.
- Made by `python recipes/demo/synthesise.py OUT --seed {seed}`. Sentences, voices and split follow
  from the seed, the bytes of the audio also from the versions of espeak-ng, flite and opus-tools.

Licence: that of the project (Apache-2.0). The GNU GPL of espeak-ng covers the program, not the
sound that it makes; flite and its voices have a permissive licence (Carnegie Mellon University).
"""
    (corpus / "README.md").write_text(text, encoding="utf-8")


def write_samples(utterances: list[Utterance], corpus: Path, folder: Path) -> None:
    """Copy an utterance of every second speaker of `test` to `folder`, in several file formats."""
    last = {u.speaker: u for u in utterances if u.speaker.part == "test"}
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lines = []
    for utterance, suffix in zip([*last.values()][::2], SAMPLE_FORMATS, strict=True):
        source = corpus / utterance.folder / f"{utterance.name}.opus"
        target = partial / f"{utterance.name}.{suffix}"
        if suffix == "opus":
            shutil.copyfile(source, target)
        else:
            sf.write(target, *sf.read(source))
        lines.append(f"{target.name}\t{utterance.text}\n")
    (partial / "references.tsv").write_text("".join(lines), encoding="ascii")
    partial.rename(folder)


def check_programs() -> None:
    """LASError unless programs and variants are there; espeak-ng passes over one that it lacks."""
    missing = [name for name in ("espeak-ng", "flite", "opusenc") if shutil.which(name) is None]
    if missing:
        raise LASError(
            f"not installed: {', '.join(missing)}; apt install espeak-ng flite opus-tools"
        )
    listed = run(["espeak-ng", "--voices=variant"]).split()
    known = {word.removeprefix("!v/") for word in listed}
    absent = sorted({*TRAIN_VARIANTS.split(), *TEST_VARIANTS.split()} - known)
    if absent:
        raise LASError(f"espeak-ng lacks {', '.join(absent)}: install version 1.51 or newer")


def synthesise(out: Path, seed: int = 0, samples: Path | None = None) -> None:
    """Make the corpus and the samples; LASError if a folder exists or a program fails."""
    for folder in (out, samples):
        if folder and folder.exists():
            raise LASError(f"{folder} exists: remove it or name another folder")
    check_programs()
    utterances = plan(seed)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for utterance in utterances:
        (partial / utterance.folder).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda utterance: speak(utterance, partial), utterances))
    write_texts(utterances, partial)
    write_readme(utterances, partial, seed)
    if samples is not None:
        write_samples(utterances, partial, samples)
    partial.rename(out)
    print(f"{len(utterances)} utterances in {out}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the demo corpus of spoken commands.")
    parser.add_argument("out", type=Path, help="folder to make; it may not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="of sentences, voices and split")
    parser.add_argument("--samples", type=Path, help="also write sample files of `test` here")
    arguments = parser.parse_args()
    try:
        synthesise(arguments.out, arguments.seed, arguments.samples)
    except LASError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

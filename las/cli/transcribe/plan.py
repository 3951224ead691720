"""The plan of a run: which files to transcribe, which to skip, and what is wrong with the inputs.

Nothing is transcribed or written here.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from las.cli.transcribe.inputs import Source, find
from las.cli.transcribe.output import Output
from las.errors import LASError, shown


@dataclass(frozen=True)
class Plan:
    """What a run has to do."""

    pending: list[Source]  # to transcribe, in order
    skipped: list[Source]  # their results exist
    errors: list[LASError]  # inputs that give no file
    notes: list[str]  # what folders and patterns hold beside audio

    @property
    def files(self) -> int:
        """All that was named, for the total of a progress bar; an input without files is one."""
        return len(self.pending) + len(self.skipped) + len(self.errors)


def make_plan(inputs: Sequence[str], output: Output, resume: bool) -> Plan:
    """Find the files of all inputs, and those that are still to do.

    Args:
        inputs: arguments of the command, see :func:`las.cli.transcribe.inputs.find`.
        output: where results go.
        resume: whether to skip files whose results exist.

    Raises:
        LASError: two files would get the same results.
    """
    notes: list[str] = []
    found = list(find(inputs, notes.append))
    sources = [source for source in found if isinstance(source, Source)]
    if output.folder is not None:
        check_collisions(sources)
    pending: list[Source] = []
    skipped: list[Source] = []
    for source in sources:
        (skipped if resume and _results_exist(output, source) else pending).append(source)
    return Plan(
        pending, skipped, [problem for problem in found if isinstance(problem, LASError)], notes
    )


def check_collisions(sources: Sequence[Source]) -> None:
    """Refuse files whose results would get the same name.

    Raises:
        LASError: two would.
    """
    taken: dict[str, Source] = {}
    for source in sources:
        key = str(source.name).casefold()  # some file systems ignore case
        if key in taken:
            raise LASError(
                f"{shown(source.path)} and {shown(taken[key].path)} would both be written as "
                f"{shown(source.name)}.*: name a folder that holds both, whose layout is kept, or "
                "write to two folders"
            )
        taken[key] = source


def _results_exist(output: Output, source: Source) -> bool:
    """Whether all results of a file exist."""
    with suppress(OSError):  # a name too long to exist
        return all(path.is_file() for path in output.paths(source))
    return False

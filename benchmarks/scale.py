"""What 1,000 to 100,000 hours cost: makes ``docs/scale.md`` of the committed results.

    python -m benchmarks.scale            rewrite docs/scale.md
    python -m benchmarks.scale --check    only say whether it is up to date (exit status 1)

Step times, costs of reading, of searching and of sampling are those of the JSON files in
``benchmarks/results/``. What is assumed (prices, speeds of links, passes over the data) stands in
:data:`ASSUMED` and is printed with the results.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import common

PAGE = Path(__file__).parents[1] / "docs/scale.md"
RECIPE = "960.yaml"
HOURS = (1_000, 10_000, 100_000)
PASSES = {1_000: 16, 10_000: 5, 100_000: 2}  # 16: `training.epochs` of the recipe
# Times real time of a GPU that nothing has been measured on yet, and of a model of which size.
TARGET, TARGET_PARAMETERS = 7_000, 59.6e6  # `recipes/librispeech/conf/100.yaml`
SECONDS_A_STEP = 600  # `data.batch_seconds` of the recipe: speech in a step of one process
WEEK = 7 * 24
BYTES_A_PARAMETER = 4  # gradients are exchanged in float32
LINKS = {"10 Gbit/s Ethernet": 1.25e9, "100 Gbit/s InfiniBand": 12.5e9, "NVLink, 450 GB/s": 450e9}
WORLDS = (8, 64)
PRICES = {"CPU core": 0.04, "GPU": 2.50}  # dollars an hour
ASSUMED = (
    f"a CPU core costs {PRICES['CPU core']:.2f} dollars an hour and a GPU {PRICES['GPU']:.2f}",
    "the model sees "
    + ", ".join(f"{hours:,} h {passes} times" for hours, passes in PASSES.items()),
    "links reach their nominal rate, and gradients are exchanged in a ring: each process sends "
    "2 (n - 1) / n of their bytes",
)


class Device(NamedTuple):
    """What trains: its name, its speed, and where the speed is from."""

    name: str
    real_time: float  # seconds of speech a second
    price: float  # dollars an hour
    evidence: str


class Evidence(NamedTuple):
    """What the committed files say."""

    devices: list[Device]
    parameters: int
    reading: common.Row
    searching: common.Row
    sampling: common.Row | None


def _files(results: Path, name: str) -> Iterator[tuple[Path, common.Row]]:
    for path in sorted(results.glob(f"*/{name}.json")):
        yield path, json.loads(path.read_text("utf-8"))


def _one(results: Path, name: str) -> tuple[Path, common.Row]:
    """The latest of the files of a benchmark.

    Raises:
        SystemExit: there is none.
    """
    found = list(_files(results, name))
    if not found:
        raise SystemExit(
            f"error: no {name}.json in {results}; run python -m benchmarks.system.{name}"
        )
    return max(found, key=lambda one: one[1]["date"])


def evidence(results: Path) -> Evidence:
    """Read the results.

    Args:
        results: the folder with a folder for each device.

    Raises:
        SystemExit: a benchmark has not been run.
    """
    devices, parameters = [], 0
    for path, file in _files(results, f"training-{Path(RECIPE).stem}"):
        rows = [row for row in file["rows"] if row["backend"] == "auto" and "skipped" not in row]
        for row in rows:
            gpu = "capability" in file
            parameters = row["parameters"]
            devices.append(
                Device(
                    file["device"] if gpu else "one core of " + file["device"].split(",")[0],
                    row["real_time"],
                    PRICES["GPU" if gpu else "CPU core"],
                    f"measured, {file['date'][:10]}, `{file['command']}`, load {file['load']}: "
                    f"`{path.parent.name}/{path.name}`",
                )
            )
    if not devices:
        raise SystemExit(
            f"error: no step of {RECIPE} in {results}; run python -m benchmarks.system.training "
            f"--config recipes/librispeech/conf/{RECIPE} --backends auto"
        )
    if all(device.price == PRICES["CPU core"] for device in devices):
        speed = TARGET * TARGET_PARAMETERS / parameters
        aim = f"**not measured**: the target of `100.yaml`, {TARGET:,} times, by parameters"
        devices.append(Device("one GPU", speed, PRICES["GPU"], aim))
    searching = json.loads((results / "peers/las-librispeech-dev-clean.json").read_text("utf-8"))
    sampling = next((file for _, file in _files(results, "sampler")), None)
    return Evidence(devices, parameters, _one(results, "reading")[1], searching, sampling)


def training(found: Evidence) -> Iterator[str]:
    """Hours, devices and money."""
    yield "| data | trained by | hours of one | of them for a week's training | dollars |"
    yield "|---|---|---|---|---|"
    for hours in HOURS:
        for device in found.devices:
            alone = hours * PASSES[hours] / device.real_time
            many = max(1, -(-alone // WEEK))
            yield (
                f"| {hours:,} h | {device.name} | {alone:,.0f} | {many:,.0f} "
                f"| {alone * device.price:,.0f} |"
            )


def reading(found: Evidence) -> Iterator[str]:
    """What feeds a device."""
    rows = {row["what"]: row["cpu_s_per_s"] for row in found.reading["rows"]}
    rate = found.reading["bytes_per_s"]
    yield "| device | reads | cores that read | MB a second of FLAC |"
    yield "|---|---|---|---|"
    for device in found.devices:
        for what in ("FLAC, read alone", "speed 0.9", "recipes/general/conf/las.yaml"):
            yield (
                f"| {device.name} | {what} | {device.real_time * rows[what]:.2f} "
                f"| {device.real_time * rate / 1e6:.2f} |"
            )


def _exchange(found: Evidence, device: Device, world: int, rate: float) -> tuple[float, float]:
    """Seconds that gradients take, and those of a step without them."""
    size = found.parameters * BYTES_A_PARAMETER
    return 2 * (world - 1) / world * size / rate, SECONDS_A_STEP / device.real_time


def exchange(found: Evidence) -> Iterator[str]:
    """Gradients against a step."""
    yield "| device | processes | link | exchange, s | a step, s | share of the step |"
    yield "|---|---|---|---|---|---|"
    for device in found.devices:
        for world in WORLDS:
            for link, rate in LINKS.items():
                took, step = _exchange(found, device, world, rate)
                share = took / step
                yield (
                    f"| {device.name} | {world} | {link} | {took:.3f} | {step:.3f} | {share:.1%} |"
                )


def searching(found: Evidence) -> Iterator[str]:
    """Transcription with the stored search."""
    cost = found.searching["cpu_s_per_s"]
    yield "| speech | hours of one CPU core | cores for a week | dollars |"
    yield "|---|---|---|---|"
    for hours in HOURS:
        alone = hours * cost
        yield (
            f"| {hours:,} h | {alone:,.0f} | {max(1, -(-alone // WEEK)):,.0f} "
            f"| {alone * PRICES['CPU core']:,.0f} |"
        )


def page(found: Evidence) -> str:
    """The page."""
    fast = max(found.devices, key=lambda device: device.real_time)
    rows = {row["what"]: row["cpu_s_per_s"] for row in found.reading["rows"]}
    recipe = rows["recipes/general/conf/las.yaml"]
    most = WORLDS[-1]
    ethernet, infiniband = (
        took / step
        for took, step in (
            _exchange(found, fast, most, LINKS[link])
            for link in ("10 Gbit/s Ethernet", "100 Gbit/s InfiniBand")
        )
    )
    names = [f"- {device.name}: {device.real_time:,.1f} times real time, {device.evidence}"
             for device in found.devices]  # fmt: skip
    lines = [
        "# What scale costs",
        "Computed by `python -m benchmarks.scale` from the files in `benchmarks/results/`, for "
        f"the model of `recipes/librispeech/conf/{RECIPE}` ({found.parameters / 1e6:.0f} M "
        "parameters). Measured numbers are of the devices named; the rest is arithmetic.",
        "",
        *names,
        "",
        "Assumed: " + "; ".join(ASSUMED) + ".",
        "",
        "## Training",
        *training(found),
        "",
        f"A week's training assumes that speed grows with the number of devices, of which each has "
        f"{SECONDS_A_STEP} s of speech in a step: with hundreds of them a step is of many hours, "
        "and whether so few and large steps still learn is not measured. The next two sections say "
        "when reading and links limit the speed.",
        "",
        "## Reading",
        f"CPU seconds of one core of {found.reading['device']} ({found.reading['date'][:10]}), "
        f"{found.reading['bytes_per_s'] / 1e3:.1f} kB a second of FLAC.",
        "",
        *reading(found),
        "",
        f"MP3 ({rows['mp3']:.4f} s a second where it is applied) and rooms ({rows['rooms']:.4f} s) "
        "are the dear augmentations. "
        f"At {fast.real_time:,.0f} times real time {fast.name} needs "
        f"{fast.real_time * recipe:.1f} cores with the shares of the general recipe: set "
        "`data.workers` to that. Where a machine has fewer, lower `data.mp3` first.",
        "",
        "## Exchange of gradients",
        f"{found.parameters * BYTES_A_PARAMETER / 1e6:.0f} MB a step, {SECONDS_A_STEP} s of speech "
        "in a step of one process. They are added up after the backward pass, in one operation, "
        "so that a step takes as much longer.",
        "",
        *exchange(found),
        "",
        f"Between {most} processes with Ethernet the exchange takes {ethernet:.0%} of a step of "
        f"{fast.name}, with InfiniBand {infiniband:.0%}. Over a few percent raise "
        "`training.accumulate`, which divides it, or use a faster link.",
        "",
        "## Transcription",
        f"The bundled model with its stored search: {found.searching['cpu_s_per_s']:.3f} CPU "
        f"seconds a second of speech ({found.searching['device']}, "
        f"{found.searching['date'][:10]}, load {found.searching['load']}, "
        "`benchmarks/results/peers/`). Files are independent: "
        "`las transcribe-bulk` divides them among machines.",
        "",
        *searching(found),
        "",
        "## Order of batches",
    ]
    return "\n".join([*lines, *sampling(found)]) + "\n"


def sampling(found: Evidence) -> list[str]:
    """What the sampler needs by the size of the corpus."""
    if found.sampling is None:
        return ["Not measured: `python -m benchmarks.system.sampler`."]
    lines = [
        f"CPU seconds of one process ({found.sampling['device']}, {found.sampling['date'][:10]}, "
        "`benchmarks.system.sampler`); memory is what the peak grows by.",
        "",
        "| utterances | of | start, s | an epoch, s | resuming in its middle, s | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['utterances']:,} | {row['of']} | {row['start_s']:.1f} | {row['epoch_s']:.1f} "
        f"| {row['resume_s']:.1f} | {row['growth_bytes'] / 1e6:.0f} |"
        for row in found.sampling["rows"]
    ]
    return [
        *lines,
        "",
        "A manifest is read as a whole: beyond about 10^6 utterances use shards "
        "(`las prepare --shards`, [data](data.md)).",
    ]


def main() -> None:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    new = page(evidence(common.RESULTS))
    if PAGE.is_file() and PAGE.read_text("utf-8") == new:
        return
    print(f"docs/{PAGE.name}: {'not up to date' if check else 'rewritten'}")
    if check:
        sys.exit(1)
    common.write(PAGE, new)


if __name__ == "__main__":
    main()

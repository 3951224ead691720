"""Model folders: what is written is read, and damage is an error of one line."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speech import small_model

from las.errors import LASError
from las.model.folder import CONFIG, read_info
from las.model.las import LAS
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, write_weights
from tests.model.test_las import transcripts


@pytest.fixture(scope="module")
def model(tiny_config):
    torch.manual_seed(0)
    return LAS(tiny_config).eval()


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_round_trip(model, tmp_path, noise):
    info = {"data": "none", "licence": "Apache-2.0", "note": 'two\nlines, "quoted" \u00e9'}
    model.save_pretrained(tmp_path / "a" / "b", info)
    assert names(tmp_path / "a" / "b") == {CONFIG, WEIGHTS}
    loaded = LAS.from_pretrained(tmp_path / "a" / "b")
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert read_info(tmp_path / "a" / "b") == info
    batch = (*noise([4000]), *transcripts([3]))
    assert torch.equal(loaded(*batch).attention, model(*batch).attention)


def test_no_info_is_none(folder):
    assert read_info(folder) == {}


def test_float16_halves_the_file(model, folder):
    whole = (folder / WEIGHTS).stat().st_size
    model.save_pretrained(folder, dtype=torch.float16)
    stored = safetensors.torch.load_file(folder / WEIGHTS)
    assert {w.dtype for w in stored.values()} == {torch.float16}
    numbers = sum(w.numel() for w in stored.values())
    assert whole - (folder / WEIGHTS).stat().st_size == pytest.approx(2 * numbers, abs=500)
    loaded = LAS.from_pretrained(folder)
    for name, weight in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], weight.half().float())


def test_int8_quarters_the_file(folder, noise):
    model = small_model().eval()
    model.save_pretrained(folder)
    whole = (folder / WEIGHTS).stat().st_size
    model.save_pretrained(folder, {"data": "none"}, torch.int8)
    assert (folder / WEIGHTS).stat().st_size < 0.5 * whole  # scales and names of a small model
    stored = safetensors.torch.load_file(folder / WEIGHTS)
    assert {w.dtype for w in stored.values()} == {torch.int8, torch.float16, torch.float32}
    loaded = LAS.from_pretrained(folder)
    assert read_info(folder) == {"data": "none"}
    for name, weight in model.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, weight, rtol=1e-3, atol=float(weight.abs().max()) / 250)
    batch = (*noise([4000]), *transcripts([3]))
    with torch.no_grad():
        assert float(loaded(*batch).ctc) == pytest.approx(float(model(*batch).ctc), rel=0.02)


def test_int8_weights_without_their_scales(folder):
    small_model().save_pretrained(folder, dtype=torch.int8)
    stored = safetensors.torch.load_file(folder / WEIGHTS)
    del stored["ctc.weight.scale"]
    write_weights(stored, folder / WEIGHTS, form="listen-attend-spell/2")
    said = failure(folder)
    assert "corrupt" in said and "ctc.weight is int8 and has no scales" in said


def test_int8_of_what_is_not_finite_is_one_line(tiny_config, tmp_path):
    broken = LAS(tiny_config)
    broken.ctc.bias.data[0] = float("nan")
    with pytest.raises(LASError, match=r"not written as int8: ctc.bias: a weight is not finite"):
        broken.save_pretrained(tmp_path / "model", dtype=torch.int8)


def test_a_format_of_the_future(model, folder):
    write_weights(dict(model.state_dict()), folder / WEIGHTS, form="listen-attend-spell/9")
    assert "its format listen-attend-spell/9 is newer than this version" in failure(folder)


def failure(folder: Path, load=LAS.from_pretrained) -> str:
    with pytest.raises(LASError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_no_folder(tmp_path):
    assert "no such model folder" in failure(tmp_path / "no")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    assert f"it has no {name}" in failure(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated_weights(folder, share):
    path = folder / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert f"{path}: corrupt" in failure(folder)
    assert f"{path}: corrupt" in failure(folder, read_info)


@given(st.binary(max_size=64), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_corrupt_weights(folder, junk, with_length):
    if with_length:  # a header of the right length, and then of anything
        junk = len(junk).to_bytes(8, "little") + junk
    (folder / WEIGHTS).write_bytes(junk)
    # Junk that happens to be a header has no tensors, and is refused for that.
    said = failure(folder)
    assert "corrupt" in said or "of another model" in said


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_nothing_is_unpickled(folder, tmp_path, write):
    marker = tmp_path / "unpickled"
    path = folder / WEIGHTS
    if write == "pickle":
        path.write_bytes(pickle.dumps(Trap(marker)))
    else:
        torch.save({"weights": Trap(marker)}, path)
    assert "corrupt" in failure(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Trap(marker)))
    assert marker.exists()  # the trap works


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "reshaped"])
def test_foreign_tensors(model, folder, change):
    weights = dict(model.state_dict())
    if change == "more":
        weights["zz"] = torch.zeros(1)
    if change == "fewer":
        del weights["ctc.bias"]
    if change == "renamed":
        weights["ctc.weights"] = weights.pop("ctc.weight")
    if change == "reshaped":
        weights["ctc.bias"] = torch.zeros(3)
    write_weights(weights, folder / WEIGHTS)
    said = failure(folder)
    assert "another model" in said
    first = {"more": "zz", "fewer": "ctc.bias", "renamed": "ctc.weight", "reshaped": "ctc.bias"}
    assert f"the first is {first[change]}" in said


def test_weights_of_another_size(model, folder):
    other = model.config.model_copy(
        update={"listener": model.config.listener.model_copy(update={"width": 7})}
    )
    save_settings(other, folder / CONFIG)
    assert "another model" in failure(folder)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("lstener: {}", "did you mean `listener`?"),
        ("training: {epochs: 3}", "unknown setting `training`"),
        ("listener: {layers: 1}", "needs at least 3 layers"),
        ("- no mapping", "expected `section: settings`"),
        ("{", "not YAML"),
    ],
)
def test_a_wrong_config(folder, text, part):
    (folder / CONFIG).write_text(text)
    said = failure(folder)
    assert part in said
    assert CONFIG in said


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file(tiny_config, folder, monkeypatch, error):
    before = (folder / WEIGHTS).read_bytes()

    def half(tensors, filename, metadata):
        Path(filename).write_bytes(before[:100])
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", half)
    with pytest.raises(error):
        LAS(tiny_config).save_pretrained(folder)
    assert (folder / WEIGHTS).read_bytes() == before
    assert names(folder) == {CONFIG, WEIGHTS}
    LAS.from_pretrained(folder)

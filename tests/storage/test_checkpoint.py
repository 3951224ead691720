"""States are whole, or it is told in one line, and a folder has one training at a time."""

import pickle
from pathlib import Path

import pytest
import torch
from speech import run_config, train

from las import config_files as configuration
from las.config import RunConfig
from las.errors import LASError
from las.storage import checkpoint
from las.training.trainer import Trainer


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def refused(path, *words):
    with pytest.raises(LASError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_what_is_saved_is_loaded(tmp_path):
    weights = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(weights.parameters())
    weights(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    position = {"epoch": 3, "best": [[12.5, 2], [float("nan"), 1]], "config": "a: 1\n"}
    path = tmp_path / "training.pt"
    checkpoint.save(
        path, {"model": weights.state_dict(), "optimizer": optimizer.state_dict(), **position}
    )
    state = checkpoint.load(path)
    assert torch.equal(state["model"]["weight"], weights.weight)
    moments = optimizer.state_dict()["state"][0]
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg_sq"], moments["exp_avg_sq"])
    assert state["epoch"] == 3 and state["best"][0] == [12.5, 2] and state["config"] == "a: 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_state_before_is_kept_and_taken_if_the_last_is_damaged(tmp_path):
    path = tmp_path / "training.pt"
    for epoch in (1, 2, 3):
        checkpoint.save(path, {"epoch": epoch, "model": torch.full((1000,), float(epoch))})
    before = checkpoint.previous(path)
    assert sorted(tmp_path.iterdir()) == [before, path]
    assert checkpoint.load(before)["epoch"] == 2
    assert checkpoint.load_last(path)[1] is None
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for data in (b"", whole[:middle], flipped, whole[:-5] + b"00000", whole[:-500] + 500 * b"\0"):
        path.write_bytes(data)
        with pytest.raises(LASError, match="corrupt"):
            checkpoint.load(path)
        state, said = checkpoint.load_last(path)
        assert state["epoch"] == 2
        assert said == f"{path} is damaged: resumes from the state before it, {before.name}"
    # A damaged state does not become the one before.
    checkpoint.save(path, {"epoch": 4})
    assert [checkpoint.load(one)["epoch"] for one in (before, path)] == [2, 4]
    before.write_bytes(b"nonsense")
    path.write_bytes(b"nonsense")
    with pytest.raises(LASError, match=f"^{path}: corrupt"):
        checkpoint.load_last(path)


def test_a_state_without_checksum_is_loaded_and_kept(tmp_path):
    path = tmp_path / "training.pt"
    torch.save({"format": "las-training/1", "epoch": 1}, path)
    assert checkpoint.load_last(path)[0]["epoch"] == 1
    checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(checkpoint.previous(path))["epoch"] == 1


def test_the_state_before_is_taken_if_the_last_is_missing(tmp_path):
    path = tmp_path / "training.pt"
    assert not checkpoint.exists(path)
    for epoch in (1, 2):
        checkpoint.save(path, {"epoch": epoch})
    path.unlink()
    before = checkpoint.previous(path)
    assert checkpoint.exists(path)
    state, said = checkpoint.load_last(path)
    assert state["epoch"] == 1
    assert said == f"{path} is missing: resumes from the state before it, {before.name}"
    # It stays until there are two again.
    checkpoint.save(path, {"epoch": 3})
    assert [checkpoint.load(one)["epoch"] for one in (before, path)] == [1, 3]
    path.unlink()
    before.write_bytes(b"nonsense")
    with pytest.raises(LASError, match=f"^{before}: corrupt"):
        checkpoint.load_last(path)


def test_on_a_file_system_without_links_the_state_before_is_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "training.pt"
    for epoch in (1, 2):
        checkpoint.save(path, {"epoch": epoch})
    before = checkpoint.previous(path)
    assert sorted(tmp_path.iterdir()) == [before, path] and checkpoint.load(before)["epoch"] == 1


def test_a_failed_save_keeps_the_last_state(tmp_path):
    path = tmp_path / "training.pt"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save(path, {"epoch": 2, "what": lambda: None})
    assert checkpoint.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files(tmp_path):
    path = tmp_path / "training.pt"
    checkpoint.save(path, {"model": torch.zeros(1000)})
    whole = path.read_bytes()
    for data in (b"", b"\0" * 100, whole[: len(whole) // 2], b"a text\n"):
        path.write_bytes(data)
        refused(path, "corrupt")


def test_foreign_files(tmp_path):
    path = tmp_path / "training.pt"
    for state in ({"model": 1}, [1, 2], {"format": "las-training/0"}):
        torch.save(state, path)
        refused(path, "not a training state")


def test_no_code_is_run(tmp_path):
    path, trace = tmp_path / "training.pt", tmp_path / "trace"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Evil(trace), protocol=2)),
        lambda: torch.save({"format": "las-training/1", "x": Evil(trace)}, path),
    ):
        write()
        refused(path, "corrupt")
        assert not trace.exists()


# --- one training to a folder ---------------------------------------------------------------


def test_a_second_training_in_the_folder_is_refused(corpus, tmp_path, monkeypatch):
    output = tmp_path / "run"
    refused = []
    update = Trainer._update

    def second(self, losses):
        update(self, losses)
        if not refused:
            before = {path: path.read_bytes() for path in output.glob("*.*") if path.is_file()}
            with pytest.raises(LASError) as caught:
                Trainer(run_config(corpus, output, speller__width=24)).run()
            refused.append(str(caught.value))
            assert before == {path: path.read_bytes() for path in before}

    monkeypatch.setattr(Trainer, "_update", second)
    (output / "epochs").mkdir(parents=True)
    (output / "epochs" / ".partial-left.safetensors").touch()
    train(run_config(corpus, output, training__epochs=1, data__workers=1))
    assert len(refused) == 1 and refused[0].startswith(f"{output}: another training runs")
    assert configuration.load(RunConfig, output / "config.yaml").speller.width == 48
    assert not list(output.rglob(".*"))


class Second:
    """Of two processes that train together."""

    first = False

    def __init__(self, taken):
        self.taken = taken

    def any(self, taken):
        assert not taken  # it has not looked
        return [self.taken]


def test_with_several_processes_the_first_takes_the_folder_for_all(tmp_path):
    with checkpoint.exclusive(tmp_path), checkpoint.exclusive(tmp_path, Second(taken=False)):
        with pytest.raises(LASError, match="another training"), checkpoint.exclusive(tmp_path):
            pass
        with (
            pytest.raises(LASError, match="another training"),
            checkpoint.exclusive(tmp_path, Second(taken=True)),
        ):
            pass

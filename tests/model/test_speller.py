"""The speller: whole sequences against single steps, dropout, scheduled sampling."""

import pytest
import torch

import las_kernels
from las.config import AttentionConfig, SpellerConfig
from las.model.speller import Speller, teacher_inputs
from las.text.characters import BLANK, EOS
from las_kernels import Memory

V, M = 6, 8
KINDS = ["location", "additive", "dot", "none"]


def make(kind: str = "location", layers: int = 2, dropout: float = 0.3) -> Speller:
    return Speller(
        V,
        M,
        SpellerConfig(layers=layers, width=10, embedding=4, dropout=dropout),
        AttentionConfig(kind=kind, width=8, heads=2, channels=3, taps=5),
    )


def remember(speller: Speller) -> Memory:
    x = torch.randn(3, 5, M, generator=torch.Generator().manual_seed(1))
    x[1, 2:] = 0
    x[2, 4:] = 0
    return speller.attend.project(x, torch.tensor([5, 2, 4]))


def inputs(steps: int = 7) -> torch.Tensor:
    tokens = torch.randint(2, V, (3, steps - 1), generator=torch.Generator().manual_seed(2))
    return teacher_inputs(tokens)


@pytest.fixture
def recorded(monkeypatch):
    """Arguments and results of every sequence that is decoded."""
    calls = []
    genuine = las_kernels.decode_sequence

    def decode(embedded, memory, decoder, score, masks=None):
        result = genuine(embedded, memory, decoder, score, masks)
        calls.append((embedded, masks, result))
        return result

    monkeypatch.setattr(las_kernels, "decode_sequence", decode)
    return calls


# --- steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_sequence_equals_its_steps(kind, layers):
    speller = make(kind, layers).eval()
    memory, read = remember(speller), inputs()
    logits, alignments = speller(memory, read)
    assert logits.shape == (3, 7, V)
    state = speller.start(memory)
    for u in range(7):
        step, state = speller.step(memory, state, read[:, u : u + 1])
        torch.testing.assert_close(logits[:, u : u + 1], step, rtol=0, atol=1e-5)
        torch.testing.assert_close(alignments[:, u : u + 1], state.alignment, rtol=0, atol=1e-5)


def test_beams_are_hypotheses_of_their_own():
    speller = make().eval()
    memory = remember(speller)
    state = speller.start(memory, beams=4)
    tokens = torch.tensor([[2, 3, 4, 5]]).expand(3, 4)
    first, state = speller.step(memory, state, tokens)
    second, _ = speller.step(memory, state, tokens.flip(1))
    assert second.shape == (3, 4, V)
    for n in range(4):
        alone = torch.stack([tokens[:, n], tokens[:, 3 - n]], 1)
        logits, _ = speller(memory, alone)
        torch.testing.assert_close(first[:, n], logits[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(second[:, n], logits[:, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
def test_steps_of_search_equal_those_with_gradients(kind, layers):
    speller = make(kind, layers).eval()
    memory, read = remember(speller), inputs()
    right, state = [], speller.start(memory)
    for u in range(7):
        logits, state = speller.step(memory, state, read[:, u : u + 1])
        right.append(logits)
    with torch.inference_mode():
        found, state = [], speller.start(memory)
        for u in range(7):
            logits, state = speller.step(memory, state, read[:, u : u + 1])
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), torch.cat(right, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("inference", [False, True])
def test_a_search_reads_the_weights_of_its_start(inference):
    with torch.inference_mode(inference):
        speller = make().eval()
    with torch.inference_mode():
        memory, read = remember(speller), inputs()[:, :1]
        before, _ = speller.step(memory, speller.start(memory), read)
        for parameter in speller.parameters():
            parameter.mul_(0.5)
        after, _ = speller.step(memory, speller.start(memory), read)
        right = speller(memory, read)[0]
    torch.testing.assert_close(after, right, rtol=0, atol=1e-5)
    assert (before - after).abs().max() > 1e-3
    assert set(speller.state_dict()) == set(make().state_dict())


def test_teacher_inputs_are_shifted_by_the_end_of_sentence():
    assert teacher_inputs(torch.tensor([[4, 2], [3, 5]])).tolist() == [[EOS, 4, 2], [EOS, 3, 5]]
    assert teacher_inputs(torch.zeros(2, 0, dtype=torch.long)).tolist() == [[EOS], [EOS]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_a_transcript_changes_no_logit_of_it(kind):
    speller = make(kind).eval()
    memory, read = remember(speller), inputs()
    other = read.clone()
    other[:, 4:] = (other[:, 4:] + 1).clamp_max(V - 1)
    assert not torch.equal(other, read)
    short, _ = speller(memory, read[:, :4])
    torch.testing.assert_close(speller(memory, read)[0][:, :4], short, rtol=0, atol=1e-6)
    torch.testing.assert_close(speller(memory, other)[0][:, :4], short, rtol=0, atol=1e-6)
    assert (speller(memory, other)[0][:, 4:] - speller(memory, read)[0][:, 4:]).abs().max() > 1e-3


# --- dropout --------------------------------------------------------------------------------


def test_masks_are_drawn_once_and_hold_over_the_sequence(recorded):
    speller = make(dropout=0.5).train()
    speller(remember(speller), inputs())
    ((_, masks, (outputs, _, _)),) = recorded
    assert masks.hidden.shape == (3, 2, 10)
    assert masks.context.shape == (3, M)
    for mask in masks:
        assert set(mask.unique().tolist()) == {0.0, 2.0}
    dropped = masks.hidden[:, -1] == 0
    assert torch.equal((outputs == 0).all(1), dropped)
    assert (outputs[:, 2:] == 0).sum() == 5 * dropped.sum()  # by then every unit has something


def test_each_pass_draws_its_own_masks(recorded):
    speller = make(dropout=0.5).train()
    memory = remember(speller)
    speller(memory, inputs())
    speller(memory, inputs())
    assert not torch.equal(recorded[0][1].hidden, recorded[1][1].hidden)


@pytest.mark.parametrize(("training", "dropout"), [(False, 0.5), (True, 0.0)])
def test_no_masks_without_dropout(recorded, training, dropout):
    speller = make(dropout=dropout).train(training)
    memory, read = remember(speller), inputs()
    assert torch.equal(speller(memory, read)[0], speller(memory, read)[0])
    assert all(masks == (None, None) for _, masks, _ in recorded)


def test_training_repeats_with_the_seed():
    speller = make().train()
    memory, read = remember(speller), inputs()

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return speller(memory, read, sampling=0.5)[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


# --- scheduled sampling ---------------------------------------------------------------------


def test_all_inputs_but_the_first_are_the_predictions_of_the_first_pass(recorded):
    speller = make(dropout=0.0).train()
    with torch.no_grad():
        for weight in speller.parameters():
            weight *= 4  # so that the predictions differ from step to step
    memory, read = remember(speller), inputs()
    plain, _ = speller(memory, read)
    predicted = plain.argmax(-1)
    assert not torch.equal(predicted[:, 1:], predicted[:, :-1])
    sampled, _ = speller(memory, read, sampling=1.0)
    assert len(recorded) == 3
    own = torch.cat([read[:, :1], predicted[:, :-1]], 1)
    assert not torch.equal(own, read)
    torch.testing.assert_close(recorded[2][0], speller.embedding(own))
    torch.testing.assert_close(sampled, speller(memory, own)[0])
    assert (sampled - plain).abs().max() > 1e-4
    torch.testing.assert_close(sampled[:, 0], plain[:, 0])


def test_a_share_of_the_inputs_is_replaced(recorded):
    speller = make(dropout=0.0).train()
    with torch.no_grad():
        speller.output.bias[BLANK] = 200.0  # likeliest, and yet never fed
        speller.output.bias[EOS] = 100.0  # never inside a transcript: every replacement shows
    memory = remember(speller)
    read = inputs(200)
    speller(memory, read, sampling=0.25)
    assert not (recorded[1][0] == speller.embedding.weight[BLANK]).all(-1).any()
    replaced = (recorded[1][0] == speller.embedding.weight[EOS]).all(-1)[:, 1:]
    assert 0.15 < replaced.float().mean() < 0.35
    kept = recorded[1][0][:, 1:][~replaced]
    torch.testing.assert_close(kept, speller.embedding(read)[:, 1:][~replaced])


def test_both_passes_have_the_same_masks(recorded):
    speller = make(dropout=0.5).train()
    speller(remember(speller), inputs(), sampling=0.5)
    first, second = (masks for _, masks, _ in recorded)
    assert first is second
    assert not recorded[0][2][0].requires_grad
    assert recorded[1][2][0].requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", [0.0, 0.5, 1.0])
def test_gradients_are_finite(kind, sampling):
    speller = make(kind).train()
    logits, _ = speller(remember(speller), inputs(), sampling)
    logits.logsumexp(-1).sum().backward()
    for name, weight in speller.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    for weight in (*speller.recurrent_weights, speller.context_weight, speller.embedding.weight):
        assert weight.grad.abs().sum() > 0


def test_a_search_after_training_on_sees_the_new_weights():
    """Also those of a fused optimizer, which does not count the versions of what it changes."""

    def stepped(speller: Speller) -> torch.Tensor:
        memory = remember(speller)
        with torch.inference_mode():
            return speller.step(memory, speller.start(memory), torch.full((3, 1), EOS))[0]

    speller = make().eval()
    before = stepped(speller)
    speller.train()
    optimizer = torch.optim.AdamW(speller.parameters(), lr=0.1, fused=True)
    for parameter in speller.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    fresh = make().eval()
    fresh.load_state_dict(speller.state_dict())
    after = stepped(speller.eval())
    assert torch.equal(after, stepped(fresh)) and not torch.equal(after, before)

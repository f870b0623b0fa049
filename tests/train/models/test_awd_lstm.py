"""The AWD-LSTM against a slow cell loop in float64 that shares nothing with it but the masks."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adarem.train.models.awd_lstm import AwdLstm, Masks, detach, join_columns, regularisation

SIZES = {"embedding": 6, "hidden": 9, "layers": 3}
DROPOUT = {
    "dropout_words": 0.2,
    "dropout_input": 0.4,
    "dropout_hidden": 0.3,
    "dropout_output": 0.4,
    "dropout_recurrent": 0.5,
}
TIME, COLUMNS, VOCABULARY = 7, 4, 11


@pytest.fixture
def model() -> AwdLstm:
    torch.manual_seed(0)
    return AwdLstm(VOCABULARY, **SIZES, **DROPOUT).double()


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor]:
    words = torch.randint(VOCABULARY, (TIME + 1, COLUMNS), generator=torch.Generator().manual_seed(1))
    return words[:-1], words[1:]


def double(masks: Masks) -> Masks:
    def cast(m):
        return tuple(map(cast, m)) if isinstance(m, tuple) else m.double()

    return Masks(*map(cast, masks))


def slow(p: dict[str, Tensor], x: Tensor, y: Tensor, hidden, masks: Masks, activation: float, temporal: float):
    """Loss and last state by the equations of section 2, a cell and a time step at a time."""
    table = p["embedding.weight"] * masks.words
    h = [s[0][0] for s in hidden]
    c = [s[1][0] for s in hidden]
    cross_entropy, raw, dropped = [], [], []
    for t in range(TIME):
        value = torch.stack([table[w] for w in x[t]]) * masks.input[0]
        for i in range(3):
            recurrent = p[f"layers.{i}.weight_hh_l0"] * masks.recurrent[i]
            bias = p[f"layers.{i}.bias_ih_l0"] + p[f"layers.{i}.bias_hh_l0"]
            gates = value @ p[f"layers.{i}.weight_ih_l0"].T + h[i] @ recurrent.T + bias
            enter, forget, content, leave = gates.chunk(4, dim=1)
            c[i] = torch.sigmoid(forget) * c[i] + torch.sigmoid(enter) * torch.tanh(content)
            h[i] = torch.sigmoid(leave) * torch.tanh(c[i])
            value = h[i] * (masks.hidden[i][0] if i < 2 else masks.output[0])
        raw.append(h[2])
        dropped.append(value)
        scores = value @ p["embedding.weight"].T + p["decoder_bias"]
        cross_entropy += [-torch.log_softmax(scores[j], 0)[y[t, j]] for j in range(COLUMNS)]
    steps = [((b - a) ** 2).mean() for a, b in zip(raw[:-1], raw[1:], strict=True)]
    loss = sum(cross_entropy) / len(cross_entropy)
    loss = loss + activation * sum((d**2).mean() for d in dropped) / TIME + temporal * sum(steps) / len(steps)
    return loss, h, c


def test_loss_state_and_gradients_are_those_of_the_equations(model: AwdLstm, tokens) -> None:
    x, y = tokens
    masks = double(model.draw_masks(COLUMNS, torch.Generator().manual_seed(2)))
    hidden = tuple((torch.randn_like(h), torch.randn_like(c)) for h, c in model.zero_hidden(COLUMNS))
    out = model(x, hidden, masks)
    loss = F.cross_entropy(out.logits.flatten(0, 1), y.flatten()) + regularisation(out, 2.0, 1.0)
    loss.backward()
    reference = {n: q.detach().clone().requires_grad_() for n, q in model.named_parameters()}
    expected, h, c = slow(reference, x, y, hidden, masks, 2.0, 1.0)
    expected.backward()
    # regularisation is summed in float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-7)
    for i in range(3):
        assert torch.allclose(out.hidden[i][0][0], h[i], atol=1e-12)
        assert torch.allclose(out.hidden[i][1][0], c[i], atol=1e-12)
    for name, q in model.named_parameters():
        assert q.grad.abs().max() > 0, name
        assert torch.allclose(q.grad, reference[name].grad, rtol=1e-5, atol=1e-8), name
    for i in range(3):  # a dropped connection learns nothing
        assert bool((model.layers[i].weight_hh_l0.grad[masks.recurrent[i] == 0] == 0).all())


def test_parameter_count_is_as_published() -> None:
    with torch.device("meta"):
        model = AwdLstm(10_000)
    assert sum(p.numel() for p in model.parameters()) == 24_221_600


def test_masks_have_the_rates_and_shapes_of_the_paper() -> None:
    model = AwdLstm(4000, embedding=64, hidden=80, layers=3, **DROPOUT)
    masks = model.draw_masks(50)
    of = {
        "dropout_words": [masks.words],
        "dropout_input": [masks.input],
        "dropout_hidden": list(masks.hidden),
        "dropout_output": [masks.output],
        "dropout_recurrent": list(masks.recurrent),
    }
    for key, drawn in of.items():
        p = DROPOUT[key]
        for mask in drawn:
            assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)]), key
            assert (mask == 0).double().mean().item() == pytest.approx(p, abs=0.06), key
    assert masks.words.shape == (4000, 1) and masks.input.shape == (1, 50, 64)
    assert [m.shape[-1] for m in masks.hidden] == [80, 80]
    assert [tuple(m.shape) for m in masks.recurrent] == [(320, 80), (320, 80), (256, 64)]


def test_evaluation_drops_nothing_and_leaves_the_weights_alone(model: AwdLstm, tokens) -> None:
    before = {n: v.clone() for n, v in model.state_dict().items()}
    plain = AwdLstm(VOCABULARY, **SIZES).double()
    plain.load_state_dict(before)
    torch.manual_seed(3)
    trained = [model(tokens[0]).logits for _ in range(2)]
    assert not torch.equal(*trained)  # in training every batch draws anew
    model.eval()
    with torch.no_grad():
        assert torch.allclose(model(tokens[0]).logits, plain(tokens[0]).logits, atol=1e-14)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_carried_state_makes_pieces_equal_to_the_complete_text(model: AwdLstm, tokens) -> None:
    model.eval()
    with torch.no_grad():
        complete = model(tokens[0])
        first = model(tokens[0][:3])
        second = model(tokens[0][3:], detach(first.hidden))
    assert torch.allclose(torch.cat([first.logits, second.logits]), complete.logits, atol=1e-14)


def test_columns_apart_equal_columns_together(model: AwdLstm, tokens) -> None:
    masks = double(model.draw_masks(COLUMNS))
    together = model(tokens[0], None, masks)
    apart = [model(tokens[0][:, a : a + 2], None, masks.of_columns(a, a + 2)) for a in (0, 2)]
    assert torch.allclose(torch.cat([o.logits for o in apart], dim=1), together.logits, atol=1e-14)
    joined = join_columns([o.hidden for o in apart])
    for (h, c), (h2, c2) in zip(joined, together.hidden, strict=True):
        assert torch.allclose(h, h2, atol=1e-14) and torch.allclose(c, c2, atol=1e-14)


def test_compiled_it_computes_the_same(tokens) -> None:
    """Traced and differentiated ahead of time, with the library's LSTM in between; lengths vary as in training."""
    torch.manual_seed(0)
    model = AwdLstm(VOCABULARY, **SIZES, **DROPOUT)
    compiled = torch.compile(model, backend="aot_eager")
    masks = model.draw_masks(COLUMNS)
    for length in (TIME, TIME - 2, TIME - 1):
        results = []
        for network in (model, compiled):
            model.zero_grad()
            out = network(tokens[0][:length], model.zero_hidden(COLUMNS), masks)
            (out.logits.pow(2).mean() + regularisation(out, 2.0, 1.0)).backward()
            results.append([out.logits.detach()] + [p.grad.clone() for p in model.parameters()])
        for a, b in zip(*results, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)

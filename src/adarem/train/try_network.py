"""Networks tried by the child process of `adarem plan`: the settings of a signature, a pass forward and backward."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adarem.run.config import DataConfig, RunConfig, TextConfig
from adarem.run.errors import UserError
from adarem.run.text_models import GptConfig, LmConfig
from adarem.train.imported import first_line, plain_defaults
from adarem.train.models.build import build_network
from adarem.train.named_networks import load_named_network

_ON_CPU = 2  # images of a pass that really computes


def describe_network(name: str, given: Sequence[str]) -> dict[str, object]:
    """The settings of a signature: those with a default that YAML can hold, those without, and all names.

    Args:
        given: the keywords that it is called with, and are no settings: num_classes first.
    """
    settings = {k: v for k, v in load_named_network(name, given[0]).settings.items() if k not in given}
    return {
        "names": list(settings),
        "required": [k for k, v in settings.items() if v is inspect.Parameter.empty],
        "defaults": plain_defaults(settings),
    }


def try_network(config: RunConfig) -> None:
    """Builds the run's network, and passes through it what training and evaluation will.

    On the meta device, which computes shapes alone, where the network allows that; else on the CPU with two images.

    Raises:
        UserError: it cannot be built, does not take such a batch, or returns something else than scores; in its words.
    """
    batch = config.scale.images_per_pass(config.cluster.world_size)
    if not isinstance(config.data, DataConfig):  # a number of a word is a value: the meta device would not look it up
        _pass_words(config, _built(config), min(batch, _ON_CPU))
        return
    meta = torch.device("meta")
    try:
        with meta:
            _pass_images(config, _built(config), batch, meta)
    except UserError:  # also where this device cannot do what the network does: the CPU decides
        _pass_images(config, _built(config), min(batch, _ON_CPU), torch.device("cpu"))


def _built(config: RunConfig) -> nn.Module:
    try:
        return build_network(config)
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"model={config.model.name}: cannot be built ({first_line(e)}); correct model.*") from None


def _pass_images(config: RunConfig, network: nn.Module, batch: int, device: torch.device) -> None:
    d, name = config.data, f"model={config.model.name}"
    assert isinstance(d, DataConfig)
    generator = None if device.type == "meta" else torch.Generator().manual_seed(0)

    def scores(images: int, side: int, key: str) -> Tensor:
        x = torch.randn(images, 3, side, side, generator=generator, device=device)
        try:
            output = network(x)
        except Exception as e:
            word = "an image" if images == 1 else f"{images} images"
            raise UserError(
                f"{name}: does not take {word} of {side} x {side} px ({first_line(e)}); {_remedy(config, e, key)}"
            ) from None
        _check_output(name, output, [images, d.num_classes], "images, classes", "num_classes")
        assert isinstance(output, Tensor)
        return output

    network.train()
    _backward(config, network, scores(batch, d.train_crop, "data.train_crop"))
    network.eval()
    with torch.no_grad():
        for images in sorted({1, batch}):  # the last batch may hold a single one
            scores(images, d.eval_crop, "data.eval_crop")


def _pass_words(config: RunConfig, network: nn.Module, batch: int) -> None:
    d, m, name = config.data, config.model, f"model={config.model.name}"
    assert isinstance(d, TextConfig) and isinstance(m, GptConfig | LmConfig)
    vocabulary, length = d.vocabulary, m.context

    def scores(tokens: Tensor) -> Tensor:
        try:
            output = network(tokens)
        except Exception as e:
            raise UserError(
                f"{name}: does not take windows of {length} words ({first_line(e)}); make it take int64 "
                f"[windows, words] below {vocabulary}, or take another model.context"
            ) from None
        _check_output(name, output, [len(tokens), length, vocabulary], "windows, words, vocabulary", "vocabulary")
        assert isinstance(output, Tensor)
        return output

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary, (batch, length), generator=generator)
    tokens[0, 0], tokens[-1, -1] = vocabulary - 1, 0
    network.train()
    _backward(config, network, scores(tokens))
    network.eval()
    with torch.no_grad():
        before = scores(tokens[:1])[:, : length // 2].float()
        two = torch.cat([(tokens[:1] + 1) % vocabulary, tokens[:1]])
        if not _close(scores(two)[1:, : length // 2].float(), before):
            raise UserError(f"{name}: scores a window by other windows; its input is [windows, words]")
        later = tokens[:1].clone()
        later[:, length // 2 :] = (later[:, length // 2 :] + 1) % vocabulary
        if not _close(scores(later)[:, : length // 2].float(), before):
            raise UserError(f"{name}: scores a word by words that come after it; mask them")


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def _remedy(config: RunConfig, error: Exception, key: str) -> str:
    if "more than 1 value per channel" in str(error):  # BatchNorm of one image on a map of one pixel
        if config.scale.micro_batch_size is not None:
            return f"raise scale.micro_batch_size or {key}"
        return f"raise scale.global_batch_size, start fewer ranks, or raise {key}"
    return f"take another network, or another {key}"


def _check_output(name: str, output: object, shape: list[int], axes: str, keyword: str) -> None:
    if not isinstance(output, Tensor):
        what = f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, Sequence) else "")
        raise UserError(f"{name}: returns {what}, not scores alone; return one tensor [{axes}]")
    if list(output.shape) != shape:
        raise UserError(
            f"{name}: returns {list(output.shape)}, not {shape} ({axes}); make its last layer of {keyword}= outputs, "
            "and keep every axis"
        )
    if not output.is_floating_point():
        raise UserError(f"{name}: returns {output.dtype}, no scores; return floating-point logits")


def _backward(config: RunConfig, network: nn.Module, scores: Tensor) -> None:
    name = f"model={config.model.name}"
    trained = {key: p for key, p in network.named_parameters() if p.requires_grad}
    if not trained or not scores.requires_grad:
        raise UserError(f"{name}: has no parameter that its output depends on; nothing would be trained")
    try:
        torch.autograd.backward(scores.float().logsumexp(dim=-1).sum())
    except Exception as e:
        raise UserError(f"{name}: has no backward pass ({first_line(e)}); correct it") from None
    unused = [key for key, p in trained.items() if p.grad is None]
    if unused and config.cluster.world_size > 1:
        raise UserError(
            f"{name}: gives {len(unused)} of {len(trained)} parameters no gradient, {unused[0]} among them, for which "
            f"{config.cluster.world_size} ranks would wait; leave them out, set requires_grad=False, or start one rank"
        )

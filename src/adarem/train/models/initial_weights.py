"""Weights that a run starts from, read from a file without executing anything in it."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from adarem.run.errors import UserError
from adarem.train.imported import first_line

# Under which a checkpoint holds its network: of adarem the evaluated average and the network, of many programs.
_NESTED = ("evaluated", "model", "state_dict")


def load_initial_weights(
    model: nn.Module, file: str, *, name: str, sha256: str | None = None, num_classes: int | None = None
) -> str | None:
    """Gives a network the weights of a file of safetensors, or of what torch.save made of a state_dict.

    Args:
        model: on the CPU.
        name: of the network, for messages.
        sha256: that the file has to have; None takes any.
        num_classes: of the data; a file without the classifier leaves it as it is. None: all has to be there.

    Returns:
        A line on the classifier where the file has none.

    Raises:
        UserError: a file that is missing, has changed, is of another kind, or does not fit, with the first such key.
    """
    where = f"model.init={file}"
    try:
        data = Path(file).read_bytes()
    except OSError as e:
        raise UserError(f"{where}: cannot be read ({e.strerror}); name a file of weights") from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{where}: changed since this run was planned; put the old file back, or plan a new run")
    found = _tensors(where, file, data)
    own = model.state_dict()
    classifier = [] if num_classes is None else _classifier(model, num_classes)
    anew = classifier and not any(key in found for key in classifier)
    for key, tensor in own.items():
        if key in found and found[key].shape != tensor.shape:
            its, ours = list(found[key].shape), list(tensor.shape)
            if key in classifier and its[1:] == ours[1:]:
                raise UserError(
                    f"{where}: {key} is of {its[0]} classes and the data have {num_classes}; save the file without "
                    f"{' and '.join(classifier)}, and the classifier starts anew"
                )
            raise UserError(f"{where}: {key} is {its} there and {ours} in {name}; give weights of this network")
        if key not in found and not (anew and key in classifier):
            lacking = sum(key not in found for key in own)
            raise UserError(
                f"{where}: lacks {key} of {name}, {lacking} of {len(own)} in all; give weights of this network"
            )
    if foreign := [key for key in found if key not in own]:
        raise UserError(f"{where}: holds {foreign[0]}, which {name} lacks; give weights of this network")
    model.load_state_dict(found, strict=False)
    return f"{where}: has no {' and '.join(classifier)}, so the classifier starts anew" if anew else None


def _tensors(where: str, file: str, data: bytes) -> dict[str, Tensor]:
    if file.endswith(".safetensors"):
        try:
            return dict(safetensors.torch.load(data))
        except SafetensorError as e:
            raise UserError(f"{where}: no file of safetensors ({e}); save it again") from None
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as e:  # whatever torch and pickle raise on other bytes
        raise UserError(
            f"{where}: not a file of tensors alone ({first_line(e)}); save it with torch.save(model.state_dict(), FILE)"
        ) from None
    while isinstance(loaded, Mapping) and (inner := [k for k in _NESTED if isinstance(loaded.get(k), Mapping)]):
        loaded = loaded[inner[0]]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserError(f"{where}: holds no state_dict; save it with torch.save(model.state_dict(), FILE)")
    return {str(k): v for k, v in loaded.items()}


def _classifier(model: nn.Module, num_classes: int) -> list[str]:
    """Keys of the last layer with an output for each class; empty where it has another form."""
    layers = [
        name for name, m in model.named_modules() if isinstance(getattr(m, "weight", None), Tensor) and name != ""
    ]
    if not layers:
        return []
    keys = [f"{layers[-1]}.{own}" for own in model.get_submodule(layers[-1]).state_dict()]
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items() if key in keys}
    return keys if all(shape[:1] == (num_classes,) for shape in shapes.values()) else []

"""A GPU that is only pretended: programs for one run here, with real numbers, to see if they work.

    python tests/pretend_gpu.py MODULE [ARGUMENT ...]      as python -m MODULE

Tensors say that they are on ``cuda:0`` and hold one on the CPU; Triton's interpreter runs its
kernels, and the emulator of ``tests/kernels`` those of CUDA C++. As on a GPU, tensors of two
devices do not go together, and in a CUDA graph nothing may make the host wait. ``torch.compile``
compiles nothing. What a real GPU does with the kernels, and how fast, is for the tests on one.
"""

import functools
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

import torch
from pretended_cuda import Host, stand_ins
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
# What looks at values, and so makes the host wait.
LOOKS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::_unique2",
}
# These take some of their arguments on the CPU.
MIXED = (
    "aten::index",
    "aten::_index",
    "aten::_pack_padded_sequence",
    "aten::_ctc_loss",
    "aten::ctc_loss",
)
# What autocast computes in bfloat16, and what their gradients are made of.
PRODUCTS = {
    "aten::linear",
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::convolution",
    "aten::convolution_backward",
}


class OnGPU(Tensor):
    """A tensor that says it is on the GPU; ``held`` is the one on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGPU":
        # Autocast goes by the second device; to autograd, which would want a driver, it is a CPU's.
        made = Tensor._make_subclass(cls, held, False, device_for_backend_keys=GPU)
        made.held = held
        return made

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    def get_device(self) -> int:
        return 0

    def cuda(self, *_: object, **__: object) -> Tensor:
        return self

    def cpu(self, *_: object, **__: object) -> Tensor:
        return self.to("cpu")

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy = self.detach().clone().requires_grad_(self.requires_grad)
            copy = torch.nn.Parameter(copy) if isinstance(self, torch.nn.Parameter) else copy
            memo[id(self)] = copy
        return memo[id(self)]  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"OnGPU({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return computed(func, args, kwargs or {})


class Pretence(TorchDispatchMode):
    """Everything passes through :func:`computed`, also what makes tensors from nothing."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return computed(func, args, kwargs or {})


class Autocast(torch.autocast):
    """Tells :func:`computed`, which autocast does not reach, whether it is on."""

    now = False

    def __enter__(self) -> Any:
        self.before = Autocast.now
        if self.device == "cuda":
            Autocast.now = self._enabled
        return super().__enter__()

    def __exit__(self, *about: Any) -> Any:
        Autocast.now = self.before
        return super().__exit__(*about)


def held(x: Any) -> Any:
    """What a tensor on the GPU holds; anything else as it is."""
    return x.held if isinstance(x, OnGPU) else x


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operator on the CPU; the results are where a GPU would have them."""
    name = func._schema.name
    if name.startswith("las_kernels::"):  # ours are to see tensors on a GPU
        with Pretence():
            return OPDEFS[name]._init_fn(*args, **kwargs)
    found: list[Tensor] = []
    tree_map(lambda x: found.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
    on_gpu = [x for x in found if isinstance(x, OnGPU)]
    here = [x for x in found if not isinstance(x, OnGPU) and x.dim() > 0]
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    backward = torch._C._current_graph_task_id() != -1
    if backward and on_gpu and name in ("aten::new_empty_strided", "aten::_to_copy"):
        target = GPU  # autograd asks for where it believes that the others are
    copies = name in ("aten::copy_", "aten::_to_copy")
    if on_gpu and here and not copies and not name.startswith(MIXED):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")
    if on_gpu and _waits(name, args, target):
        Host.waits += 1
        if Host.captures:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
    if Host.captures and on_gpu and copies and here:
        raise RuntimeError(f"what is copied when stream is capturing is not repeated: {name}")
    if on_gpu and name in PRODUCTS and (Autocast.now or backward):
        args, kwargs = tree_map(_lowered, (args, kwargs))
    owners = {id(x.held): x for x in on_gpu}
    kwargs = {k: tree_map(held, v) for k, v in kwargs.items()}
    if target is not None:
        kwargs["device"] = CPU
    result = func(*tree_map(held, args), **kwargs)
    stays = bool(on_gpu) and not (name == "aten::copy_" and not isinstance(args[0], OnGPU))
    if not (target.type == "cuda" if target is not None else stays):
        return result

    def there(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return owners.get(id(x)) if id(x) in owners else OnGPU(x)

    if name == "aten::_pack_padded_sequence":  # how many are in each step the CPU knows
        return there(result[0]), result[1]
    return tree_map(there, result)


def _waits(name: str, args: tuple[Any, ...], target: torch.device | None) -> bool:
    """Whether the host has to see what the GPU has computed."""
    if name == "aten::copy_":
        return isinstance(args[1], OnGPU) and not isinstance(args[0], OnGPU)
    if name == "aten::index":  # how many a mask chooses
        return any(isinstance(x, OnGPU) and x.dtype == torch.bool for x in args[1])
    if name in ("aten::ctc_loss", "aten::_ctc_loss"):  # want the lengths
        return any(isinstance(x, OnGPU) for x in args[2:4])
    return name in LOOKS or (target is not None and target.type == "cpu")


def _lowered(x: Any) -> Any:
    return OnGPU(x.held.bfloat16()) if isinstance(x, OnGPU) and x.is_floating_point() else x


class Generator(torch.Generator):
    """On the CPU, whatever it was asked for."""

    def __new__(cls, *_: object, **__: object) -> "Generator":
        return super().__new__(cls)


def pretend(processors: int = 4) -> None:
    """Put a GPU of so many multiprocessors in the place of ``torch.cuda``, for good."""
    for name, what in stand_ins(processors).items():
        assert hasattr(torch.cuda, name), name
        setattr(torch.cuda, name, what)
    torch.Generator = Generator  # type: ignore[assignment,misc]
    # These ask the driver before they ask us.
    Tensor.to = _to  # type: ignore[method-assign]
    Tensor.new_tensor = _new_tensor  # type: ignore[assignment,method-assign]
    for name in ("tensor", "as_tensor"):
        setattr(torch, name, functools.partial(_moved, getattr(torch, name)))
    group = torch._C._group_tensors_by_device_and_dtype
    torch._C._group_tensors_by_device_and_dtype = functools.partial(_grouped, group)
    torch.autocast = Autocast  # type: ignore[misc]
    torch.stft = _held_too(torch.stft)  # pads its window by itself, on the CPU
    # These compare the dtypes of their tensors before an operator is called.
    torch.nn.functional.conv2d = _same_dtype(torch.nn.functional.conv2d)
    torch.lstm = _same_dtype(torch.lstm)
    torch.compile = _as_it_is  # type: ignore[assignment]
    torch.backends.cudnn.enabled = False  # what it would compute has no CPU form
    torch.backends.mkldnn.set_flags(False)  # it would take tensors for its own
    # A parameter that moves is a new one; that its data change place is more than we can pretend.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _hand_over_to_triton()
    import emulated

    from las_kernels.cuda import attention_step as cuda_step

    cuda_step.built = emulated.library


def _to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to`` by the device that a tensor says it is on."""
    if args and isinstance(args[0], Tensor):  # as the other one is
        args = (args[0].device, args[0].dtype, *args[1:])
    copy = kwargs.pop("copy", False)
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    device = GPU if device is not None and device.type == "cuda" else device
    if not copy and device in (None, self.device) and dtype in (None, self.dtype):
        return self
    settings = {"device": device, "dtype": dtype, "non_blocking": non_blocking}
    if memory_format is not None:
        settings["memory_format"] = memory_format
    return torch.ops.aten._to_copy(self, **settings)  # type: ignore[no-any-return]


def _new_tensor(self: Tensor, data: Any, **settings: Any) -> Tensor:
    return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **settings})


def _grouped(group: Callable[..., dict[Any, Any]], *args: Any) -> dict[Any, Any]:
    found = group(*args)  # (device, dtype): (tensors of each list, their indices)
    return {(value[0][0][0].device, key[1]): value for key, value in found.items()}


def _moved(make: Callable[..., Tensor], data: Any, device: Any = None, **settings: Any) -> Tensor:
    made = make(data, **settings)
    device = device or (data.device if isinstance(data, Tensor) else CPU)
    return made.to(device)


def _held_too(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of what the tensors hold, outside of the dispatch; without gradients."""

    def on_held(*args: Any, **kwargs: Any) -> Tensor:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        assert len({x.device for x in tensors}) == 1
        found = call(*map(held, args), **{k: held(v) for k, v in kwargs.items()})
        return OnGPU(found) if isinstance(tensors[0], OnGPU) else found

    return functools.wraps(call)(on_held)


def _same_dtype(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """With what autocast, which comes before the operator on a GPU, makes of its tensors."""

    def lowered(*args: Any) -> Tensor:
        if Autocast.now:
            args = tree_map(lambda x: x.to(torch.bfloat16) if isinstance(x, OnGPU) else x, args)
        return call(*args)

    return functools.wraps(call)(lowered)


def _as_it_is(model: Any = None, **_: object) -> Any:
    return model if model is not None else functools.partial(_as_it_is)


def _hand_over_to_triton() -> None:
    from triton.runtime import interpreter

    launch: Callable[..., None] = interpreter.GridExecutor.__call__

    def on_cpu(self: Any, *args: Any, **kwargs: Any) -> None:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        assert all(isinstance(x, OnGPU) for x in tensors) or not any(
            isinstance(x, OnGPU) for x in tensors
        ), "a kernel was given tensors of two devices"
        launch(self, *map(held, args), **{k: held(v) for k, v in kwargs.items()})

    interpreter.GridExecutor.__call__ = on_cpu


def hurry() -> None:
    """Times mean nothing here: do not take long to find them."""
    from benchmarks.kernels import timing

    measured = timing.time_on_gpu

    def once(call: timing.Call, copies: int, graphed: bool, seconds: float = 0.0) -> timing.Timing:
        return measured(call, min(copies, 2), graphed, 0 * seconds)

    timing.time_on_gpu = once
    timing.WARM_UPS, timing.REPEATS = 1, 2
    timing.copy_bandwidth = lambda: 1e12  # a gigabyte


def main() -> None:
    """Run a module as ``python -m`` does."""
    root = Path(__file__).parents[1]
    sys.path[:0] = [str(root), str(root / "kernels"), str(root / "tests/kernels")]
    del sys.argv[0]
    # Blocks of Triton's interpreter come one after another: a barrier is for one alone.
    pretend(1 if sys.argv[0] == "benchmarks.kernels.bounds" else 4)
    hurry()
    with Pretence():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

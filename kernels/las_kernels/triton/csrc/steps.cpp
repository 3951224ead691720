// The loop over the steps of a sequence: launches of compiled Triton kernels and products of torch.
//
// steps.py says what a step does; cpp_steps.py writes it down as the list of numbers that is read
// here. What a step uses of a tensor lies a constant distance from what the step before used, so
// that a step only adds to offsets and to addresses. CUDA's driver is called through a pointer:
// neither its headers nor its library are needed to build this.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <cstdint>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace {

// cuLaunchKernel: function, grid, block, bytes of shared memory, stream, arguments, extra.
using LaunchKernel = int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                             unsigned, void*, void**, void**);

template <class T>
T* pointer(int64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

struct Driver {
  LaunchKernel launch;
  void* stream;
};

// What cpp_steps.py has written.
struct Program {
  at::IntArrayRef code;
  at::TensorList tensors;
  size_t read = 0, taken = 0;

  int64_t next() {
    TORCH_CHECK(read < code.size(), "the program ends too early");
    return code[read++];
  }
  at::Tensor tensor() {
    TORCH_CHECK(taken < tensors.size(), "the program lacks a tensor");
    return at::alias(tensors[taken++]);  // of our own: its offset is moved
  }
};

// A tensor that moves through its storage: one object for all steps, for views cost time.
struct Operand {
  at::Tensor x;
  int64_t start, move;  // elements

  explicit Operand(Program& program)
      : x(program.tensor()), start(program.next()), move(program.next()) {}
  at::Tensor& at(int64_t step) {
    x.unsafeGetTensorImpl()->set_storage_offset(start + step * move);
    return x;
  }
};

enum Kind : int64_t { kLaunch, kMm, kAddmm, kAdd, kAddcmul };  // KINDS of cpp_steps.py

struct TorchCall {
  int64_t kind;
  Operand out, left, right;

  TorchCall(int64_t kind, Program& program)
      : kind(kind), out(program), left(program), right(program) {}
  void run(int64_t step) {
    at::Tensor &o = out.at(step), &x = left.at(step), &y = right.at(step);
    switch (kind) {
      case kMm: at::mm_out(o, x, y); break;
      case kAddmm: o.addmm_(x, y); break;
      case kAdd: at::add_out(o, x, y); break;
      case kAddcmul: o.addcmul_(x, y); break;
      default: TORCH_CHECK(false, "no operator ", kind);
    }
  }
};

// An argument has eight bytes here; one of four is the first half of them, on all hosts of GPUs.
struct Launch {
  struct Move {
    int64_t argument, by;
  };
  void* function;
  unsigned grid[3], threads, shared;
  std::vector<int64_t> values;
  std::vector<void*> arguments;
  std::vector<Move> moves;

  explicit Launch(Program& program) : function(pointer<void>(program.next())) {
    for (unsigned& size : grid) size = static_cast<unsigned>(program.next());
    threads = static_cast<unsigned>(program.next());
    shared = static_cast<unsigned>(program.next());
    values.resize(program.next());
    for (int64_t& value : values) {
      value = program.next();
      arguments.push_back(&value);
    }
    moves.resize(program.next());
    for (auto& [argument, by] : moves) {
      argument = program.next();
      by = program.next();
    }
  }
  int run(const Driver& driver) {
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return 0;
    const int status = driver.launch(function, grid[0], grid[1], grid[2], threads, 1, 1, shared,
                                     driver.stream, arguments.data(), nullptr);
    for (const auto& [argument, by] : moves) values[argument] += by;
    return status;
  }
};

using Operation = std::variant<Launch, TorchCall>;

std::vector<Operation> operations_of(Program& program) {
  std::vector<Operation> found;
  for (int64_t left = program.next(); left > 0; --left) {
    const int64_t kind = program.next();
    if (kind == kLaunch)
      found.emplace_back(std::in_place_type<Launch>, program);
    else
      found.emplace_back(std::in_place_type<TorchCall>, kind, program);
  }
  return found;
}

// Returns what cuLaunchKernel returned, and which operation of a step it was; zeros if all is well.
std::tuple<int64_t, int64_t> run(at::TensorList tensors, at::IntArrayRef code, int64_t launch,
                                 int64_t stream) {
  const at::AutoDispatchBelowADInplaceOrView no_autograd;
  const Driver driver{reinterpret_cast<LaunchKernel>(launch), pointer<void>(stream)};
  Program program{code, tensors};
  while (program.read < code.size()) {
    const int64_t steps = program.next();
    std::vector<Operation> operations = operations_of(program);
    for (int64_t step = 0; step < steps; ++step) {
      for (size_t i = 0; i < operations.size(); ++i) {
        if (auto* call = std::get_if<TorchCall>(&operations[i])) {
          call->run(step);
        } else if (int status = std::get<Launch>(operations[i]).run(driver)) {
          return {status, static_cast<int64_t>(i)};
        }
      }
    }
  }
  return {0, 0};
}

}  // namespace

TORCH_LIBRARY(las_kernels_steps, library) {
  library.def("run(Tensor(a!)[] tensors, int[] code, int launch, int stream) -> (int, int)", &run);
}

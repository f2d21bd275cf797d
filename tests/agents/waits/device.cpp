// A pretend accelerator: PyTorch's PrivateUse1 device whose memory is the processor's. Its tensors cannot be mixed with those of
// the processor, have no .numpy(), and its generators belong to it, as on CUDA; every kernel is the processor's.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/InferSize.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <algorithm>
#include <set>
#include <string>

namespace {

constexpr auto GPU = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(GPU, 0);
const c10::DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    return {data, data, &c10::free_cpu, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
} allocator;
REGISTER_ALLOCATOR(GPU, &allocator)

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return GPU; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

// numbers come from a generator of the processor within
struct Generator final : c10::GeneratorImpl {
  at::Generator inner = at::detail::createCPUGenerator();
  Generator() : GeneratorImpl(DEVICE, KEYS) {}
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { inner.set_offset(offset); }
  uint64_t get_offset() const override { return inner.get_offset(); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& state) override { inner.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new Generator();
    copy->inner = inner.clone();
    return copy;
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  at::Device getDeviceFromPtr(void*) const override { return DEVICE; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Generator>(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static at::Generator generator = at::make_generator<Generator>();
    return generator;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DataPtr fresh = allocator.allocate(bytes);
    std::memcpy(fresh.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(bytes);
  }
};

at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
                 std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator, KEYS, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator, KEYS,
                                           c10::dtype_or_default(dtype));
}

// the same memory as a tensor of the processor
at::Tensor on_cpu(const at::Tensor& x) {
  if (!x.defined() || x.device().type() != GPU) return x;
  auto options = x.options().device(c10::kCPU);
  if (x.numel() == 0) return at::empty_strided(x.sizes(), x.strides(), options);
  at::Tensor same = at::from_blob(x.data_ptr(), x.sizes(), x.strides(), [x](void*) {}, options);
  same._set_conj(x.is_conj());
  same._set_neg(x.is_neg());
  return same;
}

at::Tensor on_gpu(const at::Tensor& x) {
  if (!x.defined() || x.device().type() == GPU) return x;
  at::Tensor made = at::detail::empty_strided_generic(x.sizes(), x.strides(), &allocator, KEYS, x.scalar_type());
  if (x.numel() > 0) on_cpu(made).copy_(x);
  return made;
}

// who is told of what the host asks of the device: the kind ("wait" or "upload") and the operation
void (*listener)(const char*, const char*) = nullptr;
int64_t launches = 0;

void tell(const char* kind, const char* operation) {
  if (listener) listener(kind, operation);
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool) {
  if (self.device() != to.device()) tell(self.device().type() == GPU ? "wait" : "upload", "copy");
  ++launches;
  on_cpu(to).copy_(on_cpu(self));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t needed = (self.storage_offset() + self.numel()) * self.itemsize();
  if (self.numel() > 0 && needed > self.storage().nbytes()) at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(self.storage(), needed);
  return self;
}

at::Scalar local_scalar(const at::Tensor& self) {
  tell("wait", "number");
  return on_cpu(self).item();
}

at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  std::optional<int64_t> start;
  if (offset) start = offset->expect_int();
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), start);
}

at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }

at::Tensor reshape_alias(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return as_strided(self, size, stride, self.storage_offset());
}

at::Tensor unfold(const at::Tensor& self, int64_t d, int64_t size, int64_t step) { return at::native::unfold(self, d, size, step); }

at::Tensor as_complex(const at::Tensor& self) { return at::native::view_as_complex(self); }

at::Tensor as_real(const at::Tensor& self) { return at::native::view_as_real(self); }

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return self;
}

at::Tensor& set_whole(at::Tensor& self, at::Storage storage) {
  const auto size = static_cast<int64_t>(storage.nbytes() / self.itemsize());
  const c10::SymInt sizes[] = {size}, strides[] = {1};
  return set_storage(self, std::move(storage), 0, sizes, strides);
}

at::Tensor& set_source(at::Tensor& self, const at::Tensor& source) {
  return set_storage(self, source.storage(), source.sym_storage_offset(), source.sym_sizes(), source.sym_strides());
}

bool is_mask(const std::optional<at::Tensor>& x) { return x && x->defined() && x->scalar_type() == at::kBool; }

// whether the host must know a number, or the size of a result, before the operation is over
bool waits(const std::string& name, const std::vector<c10::IValue>& given) {
  static const std::set<std::string> asking = {"nonzero", "masked_select", "bincount", "equal", "_unique2", "unique_dim",
                                               "unique_consecutive", "histc", "_linalg_check_errors"};
  if (asking.count(name)) return true;
  if (name == "index" || name == "index_put_" || name == "_index_put_impl_") {
    const auto indices = given[1].toOptionalTensorVector();
    const bool has_mask = std::any_of(indices.begin(), indices.end(), is_mask);
    return has_mask;
  }
  if (name == "repeat_interleave") return given.back().isNone();
  if (name == "multinomial") return given[1].toInt() == 1 || !given[2].toBool();  // are the probabilities fine?
  return false;
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto start = stack->size() - schema.arguments().size();
  std::vector<c10::IValue> given(stack->begin() + start, stack->end());
  const std::string name = schema.name().substr(schema.name().find("::") + 2);
  if (waits(name, given)) tell("wait", name.c_str());
  ++launches;
  auto move = [&](const at::Tensor& x) {
    TORCH_CHECK(!x.defined() || x.device().type() == GPU || x.dim() == 0, "Expected all tensors to be on the same device, but ",
                schema.name(), " got one on ", x.device(), " with others on ", DEVICE);
    return on_cpu(x);
  };
  for (size_t i = 0; i < given.size(); ++i) {
    auto& slot = (*stack)[start + i];
    if (slot.isTensor()) {
      slot = move(slot.toTensor());
    } else if (slot.isTensorList()) {
      c10::List<at::Tensor> moved;
      for (const at::Tensor& x : slot.toTensorVector()) moved.push_back(move(x));
      slot = moved;
    } else if (slot.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> moved;
      for (const std::optional<at::Tensor>& x : slot.toOptionalTensorVector()) moved.push_back(x ? std::optional(move(*x)) : x);
      slot = moved;
    } else if (slot.isDevice()) {
      slot = c10::Device(c10::kCPU);
    } else if (slot.isGenerator() && slot.toGenerator().device().type() == GPU) {
      slot = static_cast<Generator*>(slot.toGenerator().unsafeGetGeneratorImpl())->inner;
    }
  }
  std::vector<c10::IValue> moved(stack->begin() + start, stack->end());
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  const auto first = stack->size() - schema.returns().size();
  for (size_t i = 0; i < given.size(); ++i) {  // what a kernel made larger (out= of nothing) has other memory than the tensor given
    const auto* alias = schema.arguments()[i].alias_info();
    if (!alias || !alias->isWrite() || !given[i].isTensor() || !given[i].toTensor().defined()) continue;
    at::Tensor mine = given[i].toTensor(), result = moved[i].toTensor();
    if (mine.device().type() != GPU || (mine.numel() > 0 && mine.data_ptr() == result.data_ptr())) continue;
    mine.resize_(result.sizes());
    if (result.numel() > 0) on_cpu(mine).copy_(result);
  }
  for (size_t r = 0; r < schema.returns().size(); ++r) {
    auto& slot = (*stack)[first + r];
    const auto* alias = schema.returns()[r].alias_info();
    if (alias) {  // in place, or out=
      size_t from = given.size();
      for (size_t i = 0; i < given.size(); ++i) {
        const auto* other = schema.arguments()[i].alias_info();
        if (other && *other == *alias) from = i;
      }
      TORCH_CHECK(alias->isWrite() && from < given.size(), "the pretend device has no kernel for the view ", schema.name());
      slot = given[from];
    } else if (slot.isTensor()) {
      slot = on_gpu(slot.toTensor());
    } else if (slot.isTensorList()) {
      c10::List<at::Tensor> made;
      for (const at::Tensor& x : slot.toTensorVector()) made.push_back(on_gpu(x));
      slot = made;
    }
  }
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

// a copy makes conjugates and negatives real by itself; to resolve them before would be such a copy
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("unfold", &unfold);
  m.impl("view_as_complex", &as_complex);
  m.impl("view_as_real", &as_real);
  m.impl("set_.source_Storage", &set_whole);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &set_source);
}

const bool IS_STARTED = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  return true;
}();

}  // namespace

extern "C" void listen(void (*to)(const char*, const char*)) { listener = to; }
extern "C" int64_t launched() { return launches; }

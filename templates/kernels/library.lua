-- Writes the kernels that are used: the vector primitives first, then each kernel's text.
return function(common, used)
  f32 = real_size == 4
  bits_type = f32 and "uint32_t" or "uint64_t"
  int_type = f32 and "int32_t" or "int64_t"
  kernels = common.kernels
  function signature(kernel) return "KERNEL " .. kernels.signature(kernel, 110) end
  include("kernels/vector.c")
  for _, kernel in ipairs(used) do
    write("\n")
    common.kernel_text(kernel)
  end
  write("\n")
end

"""Object files: what Numba has compiled, with one entry that needs neither Numba nor Python."""

# numba and llvmlite come without type stubs
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportPrivateUsage=false
from __future__ import annotations

from typing import Any, Final

from llvmlite import binding

from pio.system import HERE

# What LLVM calls the types of results, by the letter that `Compiled` has for them, and what Numba's functions write.
_RESULTS: Final = {"q": ("i64", "i64"), "d": ("double", "double"), "?": ("i1", "i8"), "": ("void", "ptr")}
_OK, _OK_NONE = 0, -2  # what Numba's functions return where they have raised nothing
# Functions of the C library that kernels may call: they are in every process.
_MATH: Final = (
    "acos asin atan atan2 ceil cos cosh erf erfc exp exp2 expm1 floor fmod log log10 log1p log2 pow round sin"
)
_C_LIBRARY: Final = {f"{name}{suffix}" for name in f"{_MATH} sinh sqrt tan tanh trunc".split() for suffix in ("", "f")}
_C_LIBRARY.update("memcpy memmove memset write".split())
_C_LIBRARY.update(call.function for call in (HERE.sleep, HERE.wake, HERE.give_way, HERE.clock) if call is not None)


def emit(library: Any, function: str, symbol: str, result: str) -> tuple[bytes, list[str]]:
    """Return an object file that defines one symbol, and what it needs of this process besides the C library.

    The code is what Numba would run, to the bit: its optimised module, but for what nobody calls.

    Args:
        library: Numba's code library.
        function: Name of the function in it, by Numba's calling convention: where to write the result, where an
            exception, the arguments; it returns a status.
        symbol: Name of the entry that is made, a function as C has them, with the same arguments.
        result: A letter, see `Compiled`.
    """
    library._ensure_finalized()
    module = binding.parse_bitcode(library._final_module.as_bitcode())
    arguments = [str(a.type) for a in module.get_function(function).arguments]
    module.link_in(_entry(module, function, symbol, arguments[2:], result))
    for defined in [*module.functions, *module.global_variables]:
        if not defined.is_declaration and defined.name != symbol:
            defined.linkage = "internal"
    machine = library.codegen._tm
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(0)))
    declared = [f.name for f in [*module.functions, *module.global_variables] if f.is_declaration]
    return machine.emit_object(module), [n for n in declared if not n.startswith("llvm.") and n not in _C_LIBRARY]


def _entry(module: Any, function: str, symbol: str, arguments: list[str], result: str) -> Any:
    """A module with the entry, which calls the function, and says on standard error where that has raised."""
    returned, written = _RESULTS[result]
    values = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(arguments))
    types = ", ".join(["ptr", "ptr", *arguments])
    passed = ", ".join(["ptr %result", "ptr %exception", *([values] if values else [])])
    ends = {
        "": "ret void",
        "?": "%byte = load i8, ptr %result\n  %value = trunc i8 %byte to i1\n  ret i1 %value",
    }.get(result, f"%value = load {written}, ptr %result\n  ret {returned} %value")
    message = f"pio: kernel {symbol} raised an exception, which goes no further; what it computed is wrong\n"
    size = len(message)
    quoted = message[:-1] + "\\0A"
    text = f"""
@message = private constant [{size} x i8] c"{quoted}"
declare i64 @write(i32, ptr, i64)
declare i32 @"{function}"({types})
define {"zeroext i1" if result == "?" else returned} @"{symbol}"({values}) {{
  %result = alloca {written}
  %exception = alloca ptr
  store {written} zeroinitializer, ptr %result
  %status = call i32 @"{function}"({passed})
  switch i32 %status, label %failed [i32 {_OK}, label %done i32 {_OK_NONE}, label %done]
failed:
  %written = call i64 @write(i32 2, ptr @message, i64 {size})
  br label %done
done:
  {ends}
}}
"""
    made = binding.parse_assembly(text)
    made.triple, made.data_layout = module.triple, module.data_layout
    return made

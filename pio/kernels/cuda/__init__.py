"""Kernels for NVIDIA GPUs: names, arguments and results of those in ``pio.kernels``, as ``@cuda.jit`` compiles them.

``_jit`` has the decorators and ``_compiler`` all that is asked of numba-cuda, ``ptx`` the primitives that kernels are
written with; every other file is that of the same name in ``pio.kernels``. A kernel takes addresses and sizes. Its grid
is as large as the GPU, whatever there is to do, and its blocks take work in turn, as parts do on a CPU: so a recorded
launch stays right when sizes change.
"""

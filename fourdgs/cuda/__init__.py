"""Kernels for CUDA that torch and gsplat lack, in Triton: fused, batched, and without a word to the host.

Nothing here is imported before it is needed: Triton comes with torch's CUDA wheels and needs a C compiler when it is
first used. Where either is missing, the plain torch form does the same more slowly (`available.fused`).
"""

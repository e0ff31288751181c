"""What a model's genai_config.json may set of ONNX Runtime's sessions.

A model comes from a stranger, and options of a session load libraries (`custom_ops_library`, a provider's
`backend_path`), write files (`enable_profiling`) and take addresses in memory: what is not known to do none of it is
refused.
"""

from __future__ import annotations

from typing import Any

from bench.contract.errors import UserError

_KNOWN: dict[str, frozenset[str]] = {
    "session_options": frozenset(
        {
            "disable_cpu_ep_fallback",
            "disable_quant_qdq",
            "enable_cpu_mem_arena",
            "enable_mem_pattern",
            "enable_quant_qdq_cleanup",
            "ep.cuda.fpa_intb_gemm",
            "graph_optimization_level",
            "inter_op_num_threads",
            "intra_op_num_threads",
            "log_id",
            "log_severity_level",
            "log_verbosity_level",
            "optimization.disable_specified_optimizers",
            "provider_options",
            "session.disable_prepacking",
            "session.force_spinning_stop",
            "session.inter_op.allow_spinning",
            "session.intra_op.allow_spinning",
            "session.set_denormal_as_zero",
            "session.use_device_allocator_for_initializers",
            "session.use_env_allocators",
            "use_env_allocators",
        }
    ),
    "provider_options": frozenset(
        {
            "device_id",
            "enable_cuda_graph",
            "enable_graph_capture",
            "enable_skip_layer_norm_strict_mode",
            "enableGraphCapture",
            "multi_rotary_cache_concat_offset",
            "multiRotaryCacheConcatOffset",
            "use_tf32",
            "validationMode",
        }
    ),
    "run_options": frozenset({"disable_synchronize_execution_providers", "memory.enable_memory_arena_shrinkage"}),
}


def require_known(config: Any) -> None:
    """UserError where any part of a model sets an option of its session, provider or run that is not known here."""
    if isinstance(config, list):
        for each in config:
            require_known(each)
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        require_known(value)
        if key in _KNOWN and (unknown := [name for name in _names(key, value) if name not in _KNOWN[key]]):
            raise UserError(
                f"genai_config.json sets {unknown[0][:80]!r} among its {key}, which may load a library or write a file "
                "and is not known here to do neither: remove it to run the model"
            )


def _names(key: str, value: Any) -> list[str]:
    """The options that are set; of providers, those of each."""
    if key != "provider_options":
        return list(value) if isinstance(value, dict) else []
    providers = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return [name for each in providers for options in each.values() if isinstance(options, dict) for name in options]

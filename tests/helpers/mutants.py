"""Seeded faults: each must turn the test it names red. Run by test_mutants.py, in `make test-all`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `old` becomes `new`; the cases of `test` that `select` names must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str
    select: str = ""


KERNELS, AUTOGRAD = "tests/kernels/test_kernels.py", "tests/ops/test_autograd.py"
SCALED = f"{KERNELS}::test_gradients_are_scaled_before_they_are_rounded"
ROUNDED_ONCE = "tests/kernels/test_bfloat16.py::test_each_tensor_is_rounded_once"
SHAPES = f"{KERNELS}::test_every_shape"
FORMS = f"{KERNELS}::test_every_form"
MASTERS, ROADS = "tests/adapter/test_masters.py", "tests/placement/test_roads.py"
GRADCHECK = f"{AUTOGRAD}::test_gradcheck"
KEPT = "tests/kernels/test_launch_keys.py::test_calls_that_share_a_kept_launch_want_the_same_compilation"

MUTANTS = [
    Mutant(
        "store without its mask",
        "kernels/blocks.py",
        "tl.store(out_rows + offs_d[None, :], out.to(out_rows.dtype.element_ty), mask=mask_td)",
        "tl.store(out_rows + offs_d[None, :], out.to(out_rows.dtype.element_ty))",
        f"{KERNELS}::test_outputs_keep_their_halo",
    ),
    Mutant(
        "load without its mask",
        "kernels/blocks.py",
        "a = tl.load(rows + offs_k[None, :], mask=mask_t[:, None] & mask_k[None, :], other=0.0)",
        "a = tl.load(rows + offs_k[None, :])",
        f"{KERNELS}::test_outputs_keep_their_halo",
    ),
    Mutant(
        "strides of W_up swapped",
        "kernels/forward.py",
        "Linear(w_up_ptr, b_up_ptr),\n            1,\n            M,",
        "Linear(w_up_ptr, b_up_ptr),\n            D,\n            1,",
        SHAPES,
        "interpreter and 65-130-65 and dtype1",
    ),
    Mutant(
        "row offset in 32 bits",
        "kernels/forward.py",
        "first_t = (pid // tiles_m).to(tl.int64) * BLOCK_T",
        "first_t = (pid // tiles_m) * BLOCK_T",
        f"{KERNELS}::test_rows_beyond_two_to_the_31_elements",
    ),
    Mutant(
        "residual forgotten in dx",
        "kernels/backward.py",
        "        ADD_DY=add_dy,\n",
        "        ADD_DY=False,\n",
        GRADCHECK,
        "interpreter and gelu-x-True",
    ),
    Mutant(
        "relu's slope one at zero",
        "kernels/activations.py",
        "return tl.where(z <= 0.0, 0.0, 1.0).to(z.dtype)",
        "return tl.where(z < 0.0, 0.0, 1.0).to(z.dtype)",
        f"{KERNELS}::test_relu_is_flat_at_zero_as_in_pytorch",
        "interpreter",
    ),
    Mutant(
        "tanh-GELU for erf-GELU",
        "kernels/activations.py",
        "        h = gelu(z)\n",
        "        h = gelu_tanh(z)\n",
        FORMS,
        "interpreter and gelu-x-True-dtype0",
    ),
    Mutant(
        "bias added twice",
        "kernels/blocks.py",
        "acc += bias.to(acc.dtype)[None, :]",
        "acc += 2 * bias.to(acc.dtype)[None, :]",
        FORMS,
        "interpreter and gelu-x-True-dtype0",
    ),
    Mutant(
        "gradients without the activation's slope",
        "kernels/backward.py",
        "dh * slope * scale, 0.0)",
        "dh * scale, 0.0)",
        GRADCHECK,
        "interpreter and gelu-x-True",
    ),
    Mutant(
        "scale missing in dz",
        "kernels/backward.py",
        "dh * slope * scale, 0.0)",
        "dh * slope, 0.0)",
        GRADCHECK,
        "interpreter and gelu-x-True",
    ),
    Mutant(
        "scale missing in dW_up",
        "kernels/reduce.py",
        "dw_up_out_ptr, slots, M * D, scale,",
        "dw_up_out_ptr, slots, M * D, 1.0,",
        GRADCHECK,
        "interpreter and gelu-x-True",
    ),
    Mutant(
        "the last slot lost where it begins a step",
        "kernels/reduce.py",
        "for first in range(0, rows, BLOCK_R):",
        "for first in range(0, rows - 1, BLOCK_R):",
        f"{KERNELS}::test_every_slot_is_added_once",
        "17-17",
    ),
    Mutant(
        "the last of many rows lost where it begins a step",
        "kernels/reduce.py",
        "for first in range(0, rows, BLOCK_R):",
        "for first in range(0, rows - (rows > 32), BLOCK_R):",
        f"{KERNELS}::test_every_slot_is_added_once",
        "2-257",
    ),
    Mutant(
        "slope of the activated value",
        "kernels/forward.py",
        "save(z, Saved(h_ptr",
        "save(activate(z, ACTIVATION), Saved(h_ptr",
        GRADCHECK,
        "interpreter and gelu-x-True",
    ),
    Mutant(
        "accumulation in float16",
        "kernels/launch.py",
        "return tl.float64 if problem.x_bytes == 8 else tl.float32",
        "return tl.float64 if problem.x_bytes == 8 else tl.float16",
        SHAPES,
        "interpreter and (130-100-128 or 65-130-65) and dtype2",
    ),
    Mutant(
        "one row too many",
        "kernels/forward.py",
        "mask_t = offs_t < T - first_t",
        "mask_t = offs_t <= T - first_t",
        f"{KERNELS}::test_outputs_keep_their_halo",
    ),
    Mutant(
        "last tile of the bottleneck lost",
        "kernels/forward.py",
        "tiles_m = tl.cdiv(M, BLOCK_M)",
        "tiles_m = tl.maximum(M // BLOCK_M, 1)",
        SHAPES,
        "interpreter and 70-33-257 and dtype1",
    ),
    Mutant(
        "last tile of the hidden dimension lost",
        "kernels/blocks.py",
        "for start_k in range(0, K, BLOCK_K):",
        "for start_k in range(0, K // BLOCK_K * BLOCK_K, BLOCK_K):",
        SHAPES,
        "interpreter and 130-100-128 and dtype1",
    ),
    Mutant(
        "a slot of the weight gradients never written",
        "kernels/backward.py",
        "        tiles * splits,\n        **tensors,",
        "        tiles * max(1, splits - 1),\n        **tensors,",
        f"{KERNELS}::test_several_runs_of_tokens_and_a_ragged_last_one",
    ),
    Mutant(
        "every tile written to the first rows",
        "kernels/forward.py",
        "pointers(Rows(y_ptr, D), first_t, offs_t)",
        "pointers(Rows(y_ptr, D), 0, offs_t)",
        SHAPES,
        "interpreter and 130-100-128 and dtype1",
    ),
    Mutant(
        "db_up from all sixteen columns of its product",
        "kernels/backward.py",
        "tl.sum(tl.where(tl.arange(0, 16)[None, :] == 0, sums, 0.0), axis=1)",
        "tl.sum(sums, axis=1)",
        GRADCHECK,
        "interpreter and gelu-x-True",
    ),
    Mutant(
        "db_up in 16 bits from the last tile of tokens alone",
        "kernels/backward.py",
        "tl.dot(dy, ones.to(dy.dtype), sums, out_dtype=ACC_DTYPE)",
        "tl.dot(dy, ones.to(dy.dtype), out_dtype=ACC_DTYPE)",
        SHAPES,
        "interpreter and 130-100-128 and dtype2",
    ),
    Mutant(
        "no gradient for a separate residual",
        "adapter_fast/autograd.py",
        "dy if ctx.need_residual else None",
        "None",
        GRADCHECK,
        "interpreter and gelu-tensor-True",
    ),
    Mutant(
        "second derivatives silently zero",
        "adapter_fast/autograd.py",
        "torch.is_grad_enabled() and not torch.compiler.is_compiling()",
        "False",
        f"{AUTOGRAD}::test_second_derivatives_are_refused",
    ),
    Mutant(
        "x saved though nobody needs it",
        "adapter_fast/autograd.py",
        "x if need.w_down or recompute else None",
        "x",
        f"{AUTOGRAD}::test_saves_only_what_the_gradients_need",
    ),
    Mutant(
        "any stride taken for rows",
        "adapter_fast/ops/layout.py",
        "    if x.stride(-1) != 1 and x.shape[-1] != 1:\n        return True\n",
        "",
        f"{KERNELS}::test_layouts",
        "interpreter and dy and every",
    ),
    Mutant(
        "the identity instead of the adapter",
        "adapter_fast/ops/__init__.py",
        "    return y.view(x.shape), saved\n",
        "    return x.clone(), saved\n",
        SHAPES,
        "torch and 130-100-128 and dtype2",
    ),
    # These three pass every error budget, which has room for PyTorch's own bfloat16, and show beside what one rounding
    # gives. The first two touch bfloat16 rows alone (as ACC_DTYPE Triton refuses bfloat16 itself); the third float16
    # rows too, within the budgets of the tests in float16.
    Mutant(
        "products accumulated in bfloat16",
        "kernels/blocks.py",
        "        acc = multiply(a, w, acc, PRECISION, PARTIAL_SUMS)\n",
        "        acc = multiply(a, w, acc, PRECISION, PARTIAL_SUMS)\n"
        "        if a.dtype == tl.bfloat16:\n"
        "            acc = acc.to(tl.bfloat16).to(acc.dtype)\n",
        ROUNDED_ONCE,
        "fused and weight_dtype0-speed",
    ),
    Mutant(
        "weight gradients accumulated in bfloat16",
        "kernels/backward.py",
        "            dw_up = multiply(dy, h, dw_up, PRECISION)\n",
        "            dw_up = multiply(dy, h, dw_up, PRECISION)\n"
        "            if dy.dtype == tl.bfloat16:\n"
        "                dw_up = dw_up.to(tl.bfloat16).to(ACC_DTYPE)\n",
        ROUNDED_ONCE,
        "fused and weight_dtype1-speed",
    ),
    Mutant(
        "h from z already rounded",
        "kernels/forward.py",
        "h = activate(z, ACTIVATION).to(x_ptr.dtype.element_ty)",
        "h = activate(z.to(x_ptr.dtype.element_ty).to(ACC_DTYPE), ACTIVATION).to(x_ptr.dtype.element_ty)",
        ROUNDED_ONCE,
        "fused and weight_dtype0-speed",
    ),
    Mutant(
        "gradients of the weights rounded before they are scaled",
        "kernels/reduce.py",
        "out = tl.sum(total, axis=0) * scale",
        "out = tl.sum(total, axis=0).to(out_ptr.dtype.element_ty).to(total.dtype) * scale",
        SCALED,
        "interpreter and speed",
    ),
    Mutant(
        "dz rounded before it is scaled",
        "kernels/backward.py",
        "dh * slope * scale",
        "(dh * slope).to(dtype).to(ACC_DTYPE) * scale",
        SCALED,
        "interpreter and speed",
    ),
    Mutant(
        "PyTorch's products rounded before they are scaled",
        "adapter_fast/ops/eager.py",
        "torch.addmm(a.new_empty(()), a, b, beta=0, alpha=scale)",
        "torch.mm(a, b).mul_(scale)",
        SCALED,
        "torch and speed",
    ),
    Mutant(
        "the branch rounded before it is scaled",
        "kernels/blocks.py",
        "        out = finish(out, bias, scale, added)\n",
        "        out = finish(out, bias, None, None).to(out_rows.dtype.element_ty).to(ACC_DTYPE)\n"
        "        out = finish(out, None, scale, added)\n",
        f"{KERNELS}::test_the_branch_is_scaled_before_it_is_rounded",
        "interpreter",
    ),
    Mutant(
        "a kept forward that forgets the residual",
        "kernels/forward.py",
        "dtypes(tensors))(programs",
        'dtypes({**tensors, "residual_ptr": None}))(programs',
        KEPT,
    ),
    Mutant(
        "a kept dx that forgets dz",
        "kernels/backward.py",
        "wanted.add_dy, dtypes(tensors))",
        'wanted.add_dy, dtypes({**tensors, "dz_ptr": None}))',
        KEPT,
    ),
    Mutant(
        "a kept weight gradient that forgets db_up",
        "kernels/backward.py",
        "config, dtypes(tensors))(\n        tiles",
        'config, dtypes({**tensors, "db_up_ptr": None}))(\n        tiles',
        KEPT,
    ),
    Mutant(
        "a bias's alignment taken for granted",
        "adapter_fast/ops/layout.py",
        "tensor.data_ptr() % 16 == 0 and tensor.is_contiguous()",
        "tensor.is_contiguous()",
        KEPT,
    ),
    Mutant(
        "the alignment of what was saved taken for granted",
        "adapter_fast/ops/launch.py",
        "m, dy, x, h, slope, z, w_down, w_up)",
        "m, dy, x, w_down, w_up)",
        KEPT,
    ),
    Mutant(
        "the layout of what was saved taken for granted",
        "adapter_fast/ops/launch.py",
        "(None if tensor is None else dense(tensor) for tensor in kept)",
        "kept",
        "tests/ops/test_saved_tensors.py::test_any_layout",
        "interpreter and 21-40-8 and across-speed",
    ),
    Mutant(
        "running out of memory told as a kernel's failure",
        "kernels/launch.py",
        "        except torch.OutOfMemoryError:\n            raise\n",
        "",
        "tests/ops/test_backend_switch.py::test_running_out_of_memory_and_being_interrupted_pass_through",
    ),
    Mutant(
        "tf32 operands cut off",
        "kernels/blocks.py",
        "        a = round_tf32(a)\n        b = round_tf32(b)\n",
        "        a = a.to(b.dtype)\n",
        "tests/ops/test_functional.py::test_tf32_rounds_its_operands_to_nearest",
    ),
    Mutant(
        "the rows of the second loop waited for after its product",
        "kernels/blocks.py",
        "num_stages=STAGES",
        "num_stages=1",
        "tests/tiles/test_aot.py::test_the_second_loop_asks_for_its_rows_ahead_and_x_is_wide_whatever_m",
    ),
    Mutant(
        "a ragged bottleneck makes rows of x ragged",
        "adapter_fast/ops/problem.py",
        "aligned = d % unit == 0 and T",
        "aligned = d % unit == 0 and m % unit == 0 and T",
        "tests/kernels/test_launch.py::test_what_the_binding_depends_on_gets_a_launch_of_its_own",
    ),
    Mutant(
        "exact float32 products left to the kernels",
        "adapter_fast/checks.py",
        "            return _EXACT\n",
        "            pass\n",
        "tests/ops/test_functional.py::test_exact_float32_products_are_pytorchs_on_a_gpu",
        "highest",
    ),
    Mutant(
        "masters in the base's dtype",
        "adapter_fast/placement/masters.py",
        "return torch.float32 if dtype in HALVES else dtype",
        "return dtype",
        f"{MASTERS}::test_every_gain_moves_and_the_model_computes_in_its_own_dtype",
        "bert-dtype0",
    ),
    Mutant(
        "a conversion kept although its parameter has changed",
        "adapter_fast/placement/masters.py",
        "key = (value.data_ptr(), value._version, dtype, torch.is_inference_mode_enabled())",
        "key = dtype",
        f"{MASTERS}::test_conversions_without_a_gradient_are_kept_until_the_parameter_changes",
    ),
    Mutant(
        "attributes given back while another thread is inside",
        "adapter_fast/placement/masters.py",
        "        if not casts.inside:\n            for name in names:",
        "        if True:\n            for name in names:",
        f"{MASTERS}::test_a_thread_that_leaves_a_module_leaves_it_to_the_others_inside",
    ),
    Mutant(
        "Pfeiffer's norm run without its masters",
        "adapter_fast/placement/container.py",
        "return run_with_masters(module, adapter(output, args[0]))",
        "return module.forward(adapter(output, args[0]))",
        f"{MASTERS}::test_pfeiffers_place_around_a_trained_norm",
    ),
    Mutant(
        "a state dict by who is active",
        "adapter_fast/placement/tuned.py",
        "        if prefix:\n            self.exchange_entries(",
        "        if False:\n            self.exchange_entries(",
        f"{ROADS}::test_a_state_dict_does_not_depend_on_which_adapter_is_active",
    ),
    Mutant(
        "a part of an adapter loaded",
        "adapter_fast/placement/loading.py",
        "        _check_complete(name, own, found)\n",
        "        pass\n",
        f"{ROADS}::test_what_is_missing_is_an_error_and_changes_nothing",
    ),
    Mutant(
        "the saved active adapter forgotten",
        "adapter_fast/placement/loading.py",
        "        activate(model, state, active)\n",
        "        pass\n",
        f"{ROADS}::test_a_fresh_process_gets_all_from_a_state_dict",
        "bert",
    ),
    Mutant(
        "renamed keys not looked for",
        "adapter_fast/placement/loading.py",
        "    return {next(iter(revert(model, {name: torch.empty(0)}))): name for name in names}",
        "    return {}",
        f"{ROADS}::test_names_that_save_pretrained_changes_are_found_again",
    ),
    Mutant(
        "a loaded adapter asks for gradients",
        "adapter_fast/checkpoint/load.py",
        "            adapter.requires_grad_(False)\n",
        "",
        f"{ROADS}::test_what_trains_is_not_changed_by_loading_or_switching",
    ),
    Mutant(
        "what trains by hand left out of a checkpoint of adapters",
        "adapter_fast/integrations/trainer.py",
        "if not is_ours(key) and key not in kept]",
        "if not is_ours(key)]",
        f"{ROADS}::test_a_parameter_that_trains_by_hand_is_in_the_checkpoint",
    ),
    Mutant(
        "what the checkpoint lacked stays frozen",
        "adapter_fast/placement/sites.py",
        "*new_parameters(model), *untrained_poolers(model)]",
        "*untrained_poolers(model)]",
        "tests/adapter/test_new_parameters.py::test_a_model_of_another_family",
    ),
    Mutant(
        "the base's digest of what an adapter tuned",
        "adapter_fast/placement/tuned.py",
        "    return module._parameters[name] if own is None else own  # type: ignore[return-value]",
        "    return module._parameters[name]  # type: ignore[return-value]",
        "tests/checkpoint/test_checkpoint.py::test_the_digest_does_not_change_with_what_was_tuned_or_is_active",
    ),
]

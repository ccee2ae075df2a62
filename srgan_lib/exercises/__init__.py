"""Checks for the course's exercises: each says what is right, or what to look at.

A notebook's exercise has a stub; ``exercises.check_NAME(NAME)`` runs what the learner made of it
and prints one line: ``right!``, ``not attempted yet``, or a hint. There is a module for each
notebook; :mod:`srgan_lib.exercises.teacher` holds what they share.
"""

from srgan_lib.exercises.adversarial_training import (
    check_difference_map,
    check_fresh_discriminator,
    check_penalised_loss,
    check_without_adversary,
)
from srgan_lib.exercises.attention import check_no_mask, check_shift_error, check_swin_parameters
from srgan_lib.exercises.bicubic_baseline import (
    check_middle_weights,
    check_psnr_change,
    check_psnr_without,
)
from srgan_lib.exercises.data_preparation import (
    check_commutes,
    check_expected_leaks,
    check_false_period,
    check_tightest_window,
)
from srgan_lib.exercises.discriminator import (
    check_constant_loss,
    check_discriminator_parameters,
    check_fakes,
    check_receptive_field,
)
from srgan_lib.exercises.evaluation import (
    check_erase,
    check_interval_over_images,
    check_lattice_measure,
    check_spectral_distance,
)
from srgan_lib.exercises.family_tree import (
    check_espcn_parameters,
    check_keep_last,
    check_swap_upsampler,
)
from srgan_lib.exercises.generator import (
    check_generator_parameters,
    check_is_even,
    check_least_absolute_error,
)
from srgan_lib.exercises.hallucination_lab import (
    check_alibi,
    check_contrast_kept,
    check_extremes,
    check_sample_that_lies,
    check_worst_map,
)
from srgan_lib.exercises.perceptual_loss import (
    check_features_before,
    check_grain_penalty,
    check_same_error,
)

__all__ = [
    "check_alibi",
    "check_commutes",
    "check_constant_loss",
    "check_contrast_kept",
    "check_difference_map",
    "check_discriminator_parameters",
    "check_erase",
    "check_espcn_parameters",
    "check_expected_leaks",
    "check_extremes",
    "check_fakes",
    "check_false_period",
    "check_features_before",
    "check_fresh_discriminator",
    "check_generator_parameters",
    "check_grain_penalty",
    "check_interval_over_images",
    "check_is_even",
    "check_keep_last",
    "check_lattice_measure",
    "check_least_absolute_error",
    "check_middle_weights",
    "check_no_mask",
    "check_penalised_loss",
    "check_psnr_change",
    "check_psnr_without",
    "check_receptive_field",
    "check_same_error",
    "check_sample_that_lies",
    "check_shift_error",
    "check_spectral_distance",
    "check_swap_upsampler",
    "check_swin_parameters",
    "check_tightest_window",
    "check_without_adversary",
    "check_worst_map",
]

#!/bin/sh
# Trains OccSora as published, the tokenizer and then the denoiser, for PART seconds: the same line goes on from there.
# It ends with 0 once both are trained, with 124 while something is left to do.
#
#   scripts/train_paper.sh runs/paper --device cuda --precision bfloat16
#
# What follows the folder goes to both trainings. PRESET, TOKENIZER_STEPS and DENOISER_STEPS are the reference's by default.
out=$1
shift
export out
exec timeout --signal=INT "${PART:-570}" sh -c '
    occsora-sim train tokenizer --preset "${PRESET:-paper}" --out "$out/tokenizer" --checkpoint-every 100 \
        --steps "${TOKENIZER_STEPS:-17500}" "$@" &&
    occsora-sim train world-model --tokenizer "$out/tokenizer/tokenizer.safetensors" --out "$out/world-model" \
        --checkpoint-every 500 --steps "${DENOISER_STEPS:-1200000}" "$@"
' part "$@"

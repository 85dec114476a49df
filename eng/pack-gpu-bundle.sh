#!/usr/bin/env bash
# Publishes tests, the sample they run, bench and gpukit self-contained for linux-x64 into one folder and packs it as .bundle/gpu.tar.xz:
# a way to run them on a GPU machine that has no .NET SDK and no network. Unpack it inside a checkout there, so that
# models/ and tests/Data are found, then run .bundle/gpu/GpuKit.Ilgpu.Tests, …/GpuKit.Ilgpu.Bench, …/gpukit, …/sanitize or …/test-on-gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
out=artifacts/bundle/gpu
rm -rf "$out" .bundle && mkdir -p .bundle
for project in src/Cli samples/MultiplyQuantized tests bench; do
    dotnet publish "$project" -c Release -r linux-x64 --self-contained -o "$out" -v quiet --nologo -p:DebugType=none
done
cp eng/sanitize eng/test-on-gpu "$out"
# The model is in the checkout that the bundle is unpacked in.
tar -C artifacts/bundle --exclude=gpu/models -cf - gpu | xz -T0 -6 > .bundle/gpu.tar.xz
ls -lh .bundle/gpu.tar.xz

#!/bin/bash -eu
# SPDX-License-Identifier: MIT
#
# Builds the fuzz targets as ClusterFuzzLite and OSS-Fuzz want it: with the compilers, flags and
# engine of the environment (CC, CXX, CFLAGS, CXXFLAGS, LIB_FUZZING_ENGINE), into $OUT, with each
# target's corpus beside it. $SRC/vapic is the source tree.

work=${WORK:-/tmp}/vapic-fuzz
rm -rf "$work"
# buildtype plain: the environment's flags say how to optimize and which sanitizer to use. What a
# compiler newer than ours warns of is no reason not to fuzz.
meson setup "$work" "$SRC/vapic" --buildtype plain -Dwerror=false -Db_lundef=false \
    -Dcommand=false -Dfuzz_engine="$LIB_FUZZING_ENGINE"
ninja -C "$work" fuzz-targets

for corpus in "$SRC"/vapic/fuzz/corpus/*/; do
    name=$(basename "$corpus")
    cp "$work/fuzz/fuzz-$name" "$OUT/"
    (cd "$corpus" && zip -q -r "$OUT/fuzz-${name}_seed_corpus.zip" .)
done

# Longer inputs find nothing that shorter ones do not, and cost time.
for name in lapic ioapic avic apicv devices; do
    printf '[libfuzzer]\nmax_len = 512\n' >"$OUT/fuzz-$name.options"
done
printf '[libfuzzer]\nmax_len = 776\n' >"$OUT/fuzz-guest.options"
printf '[libfuzzer]\nmax_len = 256\n' >"$OUT/fuzz-state.options"

#!/bin/sh
# Instructions of one step (forward, backward, clip, update) of some rows of the suite, counted by callgrind: a guard against
# regressions that no clock and no busy machine disturbs.
#
#   tests/counts.sh check COUNT    fails when a row is more than 3 % from its figure in tests/counts.txt
#   tests/counts.sh write COUNT    writes that file anew
#
# COUNT is the program of tests/count.c.  Needs valgrind, and a CPU with AVX2; says so and passes without one.
set -eu
recorded=$(cd "$(dirname "$0")" && pwd)/counts.txt
what=$1 count=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME="$work" LD_BIND_NOW=1

# Prints the instructions of a row.
count_row() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect='counted*' \
        "$count" "$1" > "$work/log" 2>&1 || return $?
    awk '/Collected :/ { print $4 }' "$work/log"
}

: > "$work/new"
for row in tiny classic batch gru128x32 lstm128x32; do
    status=0
    instructions=$(count_row $row) || status=$?
    if [ $status = 77 ]; then
        echo "counts: skipped, this machine (or its valgrind) has no AVX2"
        exit 0
    elif [ $status != 0 ] || [ "${instructions:-0}" -le 0 ]; then
        echo "counts: $row could not be counted"
        cat "$work/log"
        exit 1
    fi
    echo "$row $instructions" >> "$work/new"
done
compiler=$(${CC:-cc} --version | head -n 1 | sed 's|^cc |gcc |')

if [ "$what" = write ]; then
    {
        echo "# Instructions of one step, by callgrind, on tcc with the AVX2 kernels; written by 'make counts', checked by 'make counts-check'."
        echo "# They depend on the compiler that built the kernels, here: $compiler"
        cat "$work/new"
    } > "$recorded"
    cat "$recorded"
    exit 0
fi

awk -v compiler="$compiler" '
    /^# They depend/ { sub(/.*here: /, ""); built = $0; next }
    /^#/ { next }
    NR == FNR { old[$1] = $2; next }
    {
        change = old[$1] > 0 ? 100 * ($2 / old[$1] - 1) : 100
        off = change > 3 || change < -3
        failed += off
        printf "counts: %-10s %10d instructions, recorded %10d, %+.2f %%%s\n", $1, $2, old[$1], change, off ? "   FAILED" : ""
    }
    END {
        if (failed == 0) { exit 0 }
        print "counts: more than 3 % off; when that is meant, or better: make counts"
        if (built != compiler) { print "counts: recorded with " built ", this is " compiler }
        exit 1
    }' "$recorded" "$work/new"

#!/bin/sh
# Runs every command of README.md that stands in a ```sh block, in a folder of its own, with the built program first in PATH.
# Needs $BPTT, the program's path; prints a line for each command and fails at the first that fails.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$BPTT" "$work/bin/bptt"
cp -r "$root/specs" "$work/specs"
PATH="$work/bin:$PATH"
export PATH XDG_CACHE_HOME="$work/cache"
cd "$work"
awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on' "$root/README.md" > commands
count=0
while IFS= read -r line <&3; do
    [ -n "$line" ] || continue
    if ! sh -c "$line" > output 2>&1; then
        echo "readme: failed: $line"
        cat output
        exit 1
    fi
    count=$((count + 1))
done 3< commands
[ "$count" -ge 10 ] || { echo "readme: only $count commands found"; exit 1; }

# The C of the README trains, as it stands there.
awk '/^```c$/ { n++; on = 1; next } /^```/ { on = 0 } on && n == 2' "$root/README.md" > learn.c
grep -q tiny_train learn.c
${CC:-cc} -std=c99 -Wall -Wextra -Werror -Itiny -c learn.c
echo "readme: $count commands passed"

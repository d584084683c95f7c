# bptt.  `make demo` and `make check` install what is missing first; `make` builds build/bptt.
#
# Settings:
PREFIX = /usr/local
DESTDIR =
CC = cc
OPTIMIZE = -O2 -g
SANITIZE =
B = build

# NO NEED TO CHANGE ANYTHING BELOW ------------------------------------------------------------------------------------------------

PACKAGES = libtcc-dev liblua5.4-dev check pkg-config libcjson-dev libxxhash-dev
WARNINGS = -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wdouble-promotion -Werror
pkg = $(shell pkg-config $(1) 2>/dev/null)
CFLAGS = -std=c11 -D_GNU_SOURCE $(OPTIMIZE) $(SANITIZE) $(WARNINGS) $(call pkg,--cflags lua5.4 libcjson)
LDFLAGS = $(SANITIZE)
LDLIBS = $(call pkg,--libs lua5.4 libcjson libxxhash) -lm -ldl

# The kernels are compiled for what each layout needs; everything else runs on the baseline CPU.
MACHINE := $(shell uname -m)
KERNEL_FLAGS = -O3 -ffp-contract=fast -fno-math-errno
ifeq ($(MACHINE),x86_64)
KERNEL_FLAGS_8 = -mavx2 -mfma
KERNEL_FLAGS_16 = -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512
endif

# tools run while building; the rest is the library plus main
tools = gen/embed.c gen/render.c
sources = $(filter-out $(tools) runtime/main.c,$(wildcard gen/*.c runtime/*.c))
texts = $(wildcard templates/* templates/kernels/* gen/cells/*.lua)
kernels = 4_1 4_4 4_8 4_16 8_1 8_4 8_8 8_16
objects = $(sources:%.c=$B/%.o) $B/embedded.o $(kernels:%=$B/kernels_%.o) $B/tcc.o
suites = $(patsubst tests/%.c,$B/tests/%,$(wildcard tests/test_*.c))

all: setup-quiet
	@$(MAKE) --no-print-directory $B/bptt

$B/bptt: $B/runtime/main.o $(objects)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# the baseline of every comparison gets what a user would give it
$B/runtime/generic.o: OPTIMIZE = -O3 -g

$B/embed: gen/embed.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $<

files = $(filter-out templates/kernels,$(texts))
$B/embedded.c: $B/embed $(files)
	$B/embed $(foreach f,$(files),$(patsubst gen/%,%,$f)=$f) > $@.new && mv $@.new $@

$B/embedded.o: $B/embedded.c
	$(CC) $(CFLAGS) -Igen -c -o $@ $<

$B/render: $B/gen/render.o $B/gen/template.o $B/gen/status.o $B/embedded.o
	$(CC) $(SANITIZE) -o $@ $^ $(LDLIBS)

$B/kernels_%.c: $B/render
	$B/render $(subst _, ,$*) > $@.new && mv $@.new $@

$B/kernels_%.o: $B/kernels_%.c
	$(CC) -std=c99 -Wall -Wextra -Wconversion -pedantic -Werror $(KERNEL_FLAGS) $(KERNEL_FLAGS_$(lastword $(subst _, ,$*))) -c -o $@ $<

# libtcc's many global names must not meet ours; its calls of exit, mprotect and its stderr come to runtime/backend_tcc.c
$B/tcc.o:
	@mkdir -p $(@D)
	ld -r --whole-archive $$($(CC) -print-file-name=libtcc.a) -o $@.all
	objcopy --wildcard --keep-global-symbol='tcc_*' --redefine-sym exit=bptt_tcc_exit \
	    --redefine-sym mprotect=bptt_tcc_mprotect --redefine-sym stderr=bptt_tcc_stderr $@.all $@
	rm $@.all

# --- tests ---------------------------------------------------------------------------------------------------------------------

$B/tests/%: tests/%.c $B/tests/oracle.o $(objects)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $(filter %.c %.o,$^) $(call pkg,--libs check) $(LDLIBS)

.PRECIOUS: $B/kernels_%.c $B/tests/%.o
.PHONY: all setup-quiet
setup-quiet:

-include $(wildcard $B/*/*.d)

# bptt.  `make demo` and `make check` install what is missing first; `make` builds build/bptt.
#
#   make            build/bptt                                   make setup      installs the packages (Debian, Ubuntu)
#   make demo       trains a character RNN for ten seconds       make check      all tests
#   make install    PREFIX=/usr/local DESTDIR=                   make clean
#   make golden     rewrites tests/golden after a change that was meant      make check-slow   exp, tanh of every float
#   make counts     rewrites tests/counts.txt after a change of speed that was meant; make counts-check compares
#   make lint       clang-format, clang-tidy, cppcheck           make asan, make valgrind   the tests under them
#   make check-torch     trains every cell beside PyTorch, from the same weights, and compares every step
#   make bench-peers, make bench-plot   ours beside oneDNN, OpenBLAS, PyTorch, numpy     make echo   the flags in effect

# --- settings ------------------------------------------------------------------------------------------------------------------------

PREFIX = /usr/local
DESTDIR =
CC = cc
OPTIMIZE = -O2 -g
SANITIZE =
B = build

# --- no need to change anything below ---------------------------------------------------------------------------------------------------

PACKAGES = libtcc-dev liblua5.4-dev check pkg-config libcjson-dev libxxhash-dev zlib1g-dev
LINT_PACKAGES = clang clang-format clang-tidy cppcheck valgrind
modules = lua5.4 libcjson libxxhash zlib
JOBS = -j$(shell nproc)
pkg = $(shell pkg-config $(1) 2>/dev/null)

WARNINGS = -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wdouble-promotion -Werror
CFLAGS = -std=c11 -D_GNU_SOURCE $(OPTIMIZE) $(SANITIZE) $(WARNINGS) $(call pkg,--cflags $(modules))
LDFLAGS = $(SANITIZE)
LDLIBS = $(call pkg,--libs $(modules)) -lm -ldl -pthread

# Everything runs on the baseline CPU, but for the kernels: each library is compiled for the CPUs that will be given it.
KERNEL_OPTIMIZE = -O3
KERNEL_FLAGS = -std=c99 $(KERNEL_OPTIMIZE) -ffp-contract=fast -fno-math-errno -Wall -Wextra -Wconversion -pedantic -Werror $(SANITIZE)
ifeq ($(shell uname -m),x86_64)
KERNEL_FLAGS_8 = -mavx2 -mfma
KERNEL_FLAGS_16 = -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512
endif

tools = gen/embed.c gen/render.c
sources = $(filter-out $(tools) runtime/main.c,$(wildcard gen/*.c runtime/*.c))
kernels = 4_1 4_4 4_8 4_16 8_1 8_4 8_8 8_16
objects = $(sources:%.c=$B/%.o) $B/embedded.o $(kernels:%=$B/kernels_%.o) $B/tcc.o
suites = $(patsubst tests/%.c,$B/tests/%,$(wildcard tests/test_*.c))

all: $B/bptt

$B/bptt: $B/runtime/main.o $(objects)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/%.o: %.c | $B/ready
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# the baseline of every comparison gets what a user would give it
$B/runtime/generic.o: OPTIMIZE = -O3 -g
# the products of `bptt diagnose`
$B/runtime/interpret.o: OPTIMIZE = -O3 -g

# one clear line in place of a hundred about headers
$B/ready:
	@pkg-config --exists $(modules) || { echo "missing: $(PACKAGES)"; echo "'make setup' installs them (Debian, Ubuntu)"; exit 1; }
	@mkdir -p $(@D) && touch $@

# --- texts that the program carries, and what is rendered from them -------------------------------------------------------------------------

texts = $(wildcard templates/*.* templates/Makefile templates/kernels/* templates/spell/* gen/cells/*.lua runtime/*.gp)

$B/embed: gen/embed.c | $B/ready
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LDLIBS)

$B/embedded.c: $B/embed $(texts)
	$B/embed $(foreach f,$(texts),$(f:gen/%=%)=$f) > $@.new && mv $@.new $@

$B/embedded.o: $B/embedded.c
	$(CC) $(CFLAGS) -Igen -c -o $@ $<

$B/render: $B/gen/render.o $B/gen/template.o $B/gen/status.o $B/embedded.o
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/kernels_%.c: $B/render
	$B/render $(subst _, ,$*) > $@.new && mv $@.new $@

$B/kernels_%.o: $B/kernels_%.c runtime/kernels.h
	$(CC) $(KERNEL_FLAGS) $(KERNEL_FLAGS_$(lastword $(subst _, ,$*))) -Iruntime -c -o $@ $<

# libtcc's many global names must not meet ours; its calls of exit and mprotect and its stderr come to runtime/backend_tcc.c
$B/tcc.o: Makefile | $B/ready
	ld -r --whole-archive $$($(CC) -print-file-name=libtcc.a) -o $@.all
	objcopy --wildcard --keep-global-symbol='tcc_*' --redefine-sym exit=bptt_tcc_exit \
	    --redefine-sym mprotect=bptt_tcc_mprotect --redefine-sym stderr=bptt_tcc_stderr $@.all $@
	rm $@.all

# --- for people ---------------------------------------------------------------------------------------------------------------------------

# Installs what is missing and says so; silent when all is there.
define install-packages
@command -v dpkg-query > /dev/null && command -v apt-get > /dev/null || \
    { pkg-config --exists $(modules) 2> /dev/null && exit 0; echo "not a Debian system: please install $(1)"; exit 1; }; \
missing=; for p in $(1); do \
    dpkg-query -W -f='$${db:Status-Status}\n' $$p 2> /dev/null | grep -qx installed || missing="$$missing $$p"; done; \
[ -z "$$missing" ] && exit 0; \
if [ "$$(id -u)" = 0 ]; then root=; else root=sudo; fi; \
echo "installing$$missing"; \
$$root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends $$missing > /dev/null
endef

setup:
	$(call install-packages,$(PACKAGES))

TEXT = /usr/share/common-licenses/GPL-3

demo: setup
	@$(MAKE) --no-print-directory -s $(JOBS) all
	@echo "training specs/charrnn.lua on $(TEXT) for ten seconds"
	@$B/bptt train specs/charrnn.lua --data $(TEXT) --valid-fraction 0.1 --seconds 10 --out $B/charrnn.safetensors
	@echo; echo "a sample:"; echo
	@$B/bptt sample $B/charrnn.safetensors --prime "  You may " -n 300 --temperature 0.6
	@echo; echo; echo "next:"
	@echo "  $B/bptt sample $B/charrnn.safetensors --prime 'The ' --temperature 0.5"
	@echo "  $B/bptt train --resume $B/charrnn.safetensors --data $(TEXT) --valid-fraction 0.1 --seconds 10"
	@echo "  $B/bptt gen specs/charrnn.lua -o charrnn     the C that was trained, to build and deploy anywhere"
	@echo "  $B/bptt bench specs/charrnn.lua              what specialised code gains here"
	@echo "  $B/bptt help"

install: all
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/bptt/specs/tasks"
	install -m 755 $B/bptt "$(DESTDIR)$(PREFIX)/bin/bptt"
	install -m 644 specs/*.lua "$(DESTDIR)$(PREFIX)/share/bptt/specs"
	install -m 644 specs/tasks/*.lua "$(DESTDIR)$(PREFIX)/share/bptt/specs/tasks"

clean:
	rm -rf $B

echo:
	@echo "CC       $(CC)"
	@echo "CFLAGS   $(CFLAGS)"
	@echo "LDLIBS   $(LDLIBS)"
	@echo "kernels  $(KERNEL_FLAGS)"

# --- tests --------------------------------------------------------------------------------------------------------------------------------

$B/tests/%: tests/%.c $B/tests/oracle.o $(objects)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(call pkg,--cflags check) -MMD -MP $(LDFLAGS) -o $@ $< $(filter %.o,$^) $(call pkg,--libs check) $(LDLIBS)

$B/tests/test_tasks: | $B/tests/make_data

check: setup
	@$(MAKE) --no-print-directory -s $(JOBS) tests
	@$(MAKE) --no-print-directory -s run-tests

tests: $B/bptt $(suites)

# Runs every suite, one on each core, even after a failure, and says how many passed.  What a suite prints comes when it has ended.
# Times are Check's limits of a test, in seconds, and what they are multiplied by: others are at work.
run-tests: tests
	@rm -rf $B/logs && mkdir -p $B/logs
	@printf '%s\n' $(longest) $(filter-out $(longest),$(RUN)) | BPTT=$(abspath $B/bptt) CC=$(CC) CK_DEFAULT_TIMEOUT=60 \
	    CK_TIMEOUT_MULTIPLIER=2 xargs -P $(shell nproc) -I {} sh -c 'log=$B/logs/$$(basename {}); \
	    if $(UNDER) {} > $$log 2>&1; then cat $$log && mv $$log $$log.passed; else cat $$log; echo "FAILED: {}"; fi'
	@passed=$$(find $B/logs -name '*.passed' | wc -l); \
	echo "suites: $$passed passed, $$(($(words $(RUN)) - passed)) failed"; [ $$passed = $(words $(RUN)) ]
longest = $(foreach s,programs emitted cells backend proof,$(filter %/test_$s,$(RUN)))
RUN = $(filter-out $(LEFT_OUT:%=$B/tests/test_%),$(suites)) tests/readme.sh

# tanh, exp and sigmoid of every float: minutes
check-slow: $B/tests/slow_ulp
	$B/tests/slow_ulp

# against PyTorch; Debian's python3, which its packages are for
TORCH_PACKAGES = python3-torch python3-numpy
check-torch:
	$(call install-packages,$(PACKAGES) $(TORCH_PACKAGES))
	@$(MAKE) --no-print-directory -s $(JOBS) all
	@/usr/bin/python3 -B tests/torch/compare.py $B/bptt

golden: $B/tests/test_emit
	BPTT_UPDATE_GOLDEN=1 $B/tests/test_emit

# instructions of a step, by callgrind: the speed that no clock disturbs
counts counts-check:
	$(call install-packages,$(PACKAGES) valgrind)
	@$(MAKE) --no-print-directory -s $(JOBS) $B/tests/count
	@CC="$(CC)" tests/counts.sh $(if $(filter counts,$@),write,check) $(abspath $B/tests/count)

sanitized = B=$B/asan OPTIMIZE="-O1 -g" KERNEL_OPTIMIZE=-O1 SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"

# suites that run long and judge the code that libtcc or another compiler makes, which these sanitizers do not see, stay out
asan:
	@$(MAKE) --no-print-directory -s $(JOBS) $(sanitized) tests
	@$(MAKE) --no-print-directory -s $(sanitized) LEFT_OUT="emitted programs truncation tasks" run-tests

# valgrind knows no AVX-512, which code compiled for this machine may use, so the suites that run such code stay out
valgrind: tests
	@$(MAKE) --no-print-directory -s UNDER="valgrind -q --error-exitcode=9 --leak-check=full --trace-children=no" \
	    RUN="$(foreach s,file data safetensors npz checkpoint graph emit,$B/tests/test_$s)" run-tests

ours = $(wildcard gen/*.[ch] runtime/*.[ch] tests/*.[ch] tests/bench/*.[ch])

lint:
	$(call install-packages,$(PACKAGES) $(LINT_PACKAGES))
	@clang-format --dry-run --Werror $(ours)
	@ls gen/*.c runtime/*.c | xargs -P 2 -n 8 sh -c 'clang-tidy --quiet "$$@" -- $(CFLAGS) 2> /dev/null' tidy
	@cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=ctuuninitvar --std=c11 gen runtime
	@echo "lint: nothing to say"

# --- the comparison with others: tests/bench/peers.c -----------------------------------------------------------------------------------------

PEER_PACKAGES = libdnnl-dev libopenblas-dev $(TORCH_PACKAGES)
PEERS = $B/bench/peers --rows "$(ROWS)" --systems "$(SYSTEMS)" --seconds $(or $(SECONDS),1) --text $(TEXT) --out $B/bench

# what the peers' C is given as well as the libraries: this machine's vectors, and glibc's vector tanh and exp by `omp simd`
$B/tests/bench/%.o: OPTIMIZE = -O3 -g -march=native -fno-math-errno -fopenmp-simd -Wno-pass-failed

$B/bench/peers: $(patsubst %.c,$B/%.o,$(wildcard tests/bench/*.c)) $(objects)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -ldnnl -lopenblas -lmvec $(LDLIBS)

bench-peers:
	$(call install-packages,$(PACKAGES) $(PEER_PACKAGES))
	@$(MAKE) --no-print-directory -s $(JOBS) $B/bench/peers
	@$(PEERS)

bench-plot:
	$(call install-packages,gnuplot-nox)
	@[ -f $B/bench/peers.csv ] || $(MAKE) --no-print-directory bench-peers
	@gnuplot -e "folder='$B/bench'" tests/bench/plot.gp
	@ls $B/bench/*.svg $B/bench/*.png

.PHONY: all setup demo install clean echo check tests run-tests check-slow check-torch golden counts counts-check asan valgrind lint bench-peers bench-plot
.PRECIOUS: $B/kernels_%.c $B/%.o
.DELETE_ON_ERROR:

-include $(wildcard $B/*/*.d $B/tests/bench/*.d)

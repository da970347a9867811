# Postgate: build, try, test, install. `make install` installs what `make build` or `make pgo` made, so
# it needs no cargo, and another user may run it. `make deb` builds a Debian package, `make rpm` an RPM
# package, and `make man` the manual pages and docs/mistakes.md.

PREFIX   = /usr
DESTDIR  =
BUILD    = target/release
CARGO    = cargo

PROGRAMS = tcp-lookup socketmap policy dict sasl
UNITS    = $(wildcard units/*.socket units/*.service)
PAGES    = $(wildcard docs/man/*.5 docs/man/*.8)
# The documents and the files that they link to, each where the links expect it.
DOCS     = README.md CHANGELOG.md CONTRIBUTING.md LICENSE SECURITY.md config.toml.example \
           $(wildcard examples/directory.* docs/*.md docs/api/* docs/monitoring/*)

libexec  = $(PREFIX)/libexec/postgate
sbin     = $(PREFIX)/sbin
unitdir  = $(PREFIX)/lib/systemd/system
sysusers = $(PREFIX)/lib/sysusers.d/postgate.conf
docdir   = $(PREFIX)/share/doc/postgate
mandir   = $(PREFIX)/share/man
config   = /etc/postgate/config.toml

# For `make deb` and `make rpm`: more options for cargo-deb and cargo-generate-rpm, the versions that are
# installed if there is none, and whom the packages name, by default the authors of Cargo.toml.
DEB_FLAGS =
RPM_FLAGS =
RPM_BUILD = build
CARGO_DEB = 3.8.0
CARGO_RPM = 0.21.1
TOOLS     = target/tools
MAINTAINER = $(shell sed -n 's/^authors = \["\(.*\)"\]$$/\1/p' Cargo.toml)

NO_DENY   = no cargo-deny, which checks the dependencies: cargo install cargo-deny --locked

# For `make pgo`, which needs the llvm-profdata of the compiler's own LLVM.
PGO      = $(CURDIR)/target/pgo
HOST     = $(shell rustc --print host-tuple)
PROFDATA = $(shell rustc --print target-libdir)/../bin/llvm-profdata
NO_PROFDATA = no llvm-profdata for this compiler: rustup component add llvm-tools, or set PROFDATA
space    = $() $()
comma    = ,

.PHONY: build pgo demo test bench fuzz check audit man deb rpm install uninstall

build:
	$(CARGO) build --release --locked

# Profile-guided optimization: builds the programs so that they count what runs, puts them under the load
# of the bench, and builds them again with the counts. This takes about three times as long as `make
# build`, whose programs it replaces. PROGRAMS="socketmap policy" builds only these. With CARGO_TARGET_DIR,
# set BUILD to the folder "release" in it.
pgo_build = RUSTFLAGS="$(RUSTFLAGS) $(1)" $(CARGO) build --release --locked $(PROGRAMS:%=--bin %) \
            --target $(HOST) --target-dir "$(PGO)"
pgo:
	@command -v "$(PROFDATA)" >/dev/null || { echo 'pgo: $(NO_PROFDATA)' >&2; exit 1; }
	rm -rf "$(PGO)"
	$(call pgo_build,-Cprofile-generate=$(PGO)/counts)
	LLVM_PROFILE_FILE="$(PGO)/counts/%m.profraw" BENCH_PROGRAMS="$(PGO)/$(HOST)/release" \
	  BENCH_PROTOCOLS=$(subst $(space),$(comma),$(strip $(PROGRAMS))) BENCH_LATENCY=0 BENCH_ROUNDS=1 \
	  $(CARGO) bench --locked --profile dev --bench bridge
	"$(PROFDATA)" merge -o "$(PGO)/counts.profdata" "$(PGO)/counts"
	rm -rf "$(PGO)/$(HOST)"
	$(call pgo_build,-Cprofile-use=$(PGO)/counts.profdata)
	install -d "$(BUILD)"
	install -m 0755 $(PROGRAMS:%="$(PGO)/$(HOST)/release/%") "$(BUILD)"

# With KEEP=1 everything keeps running until Ctrl-C. API=python or API=php takes another sample API.
demo:
	$(CARGO) build --release --locked --bins --examples
	@API="$(API)" $(CARGO) run --quiet --release --locked --example demo

test:
	$(CARGO) test --locked

# The cost of a request, and the least that it could be: about six minutes on an idle machine. Then
# the calls of a mail, as root on Debian: two minutes.
# BENCH_SECONDS=0.3 BENCH_ROUNDS=1 makes a short run; benches/bridge/main.rs has the other variables.
# The programs are those of `make build`: cargo bench would build them with the features of the tests.
bench:
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --target-dir target/bench --bench codecs
	BENCH_PROGRAMS="$(BUILD)" $(CARGO) bench --locked --target-dir target/bench --bench bridge
	$(CARGO) bench --locked --target-dir target/bench --bench mail

# Uses another seed for every run, until TIME seconds have passed, and prints it.
TIME = 60
fuzz:
	@end=$$(( $$(date +%s) + $(TIME) )); seed=$$(date +%s); \
	while [ "$$(date +%s)" -lt "$$end" ]; do \
	  echo "POSTGATE_FUZZ_SEED=$$seed"; \
	  POSTGATE_FUZZ_SEED=$$seed $(CARGO) test --quiet --locked --test fuzz || exit 1; \
	  seed=$$((seed + 1)); done

# Licences, bans and sources of the dependencies are checked by cargo-deny. It takes minutes to build,
# so it is not fetched.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then \
	  $(CARGO) deny --locked --config .deny.toml check --hide-inclusion-graph licenses bans sources; \
	elif [ "$$CI" = true ]; then echo '$(NO_DENY)' >&2; exit 1; \
	else echo 'check: skipped: $(NO_DENY)' >&2; fi

# Known vulnerabilities of the dependencies. It downloads a database, and what it says depends on the
# day, so it is no part of `make check`.
audit:
	$(CARGO) deny --locked --config .deny.toml check advisories

# From the text of --help, examples/man and config.toml.example.
man:
	@mkdir -p docs/man
	$(CARGO) run --quiet --locked --example man -- docs/man
	$(CARGO) run --quiet --locked --example mistakes -- docs/mistakes.md

# $(call tool,NAME,VERSION): prints the path of a tool for cargo, which is installed if there is none.
tool = command -v $(1) || { \
  test -x $(TOOLS)/$(1)-$(2)/bin/$(1) || { \
    echo 'no $(1): installing version $(2) in $(TOOLS)' >&2; \
    $(CARGO) install $(1) --locked --version $(2) --root $(TOOLS)/$(1)-$(2) >&2; } && \
  echo $(TOOLS)/$(1)-$(2)/bin/$(1); }

deb:
	tool=$$($(call tool,cargo-deb,$(CARGO_DEB))) && \
	"$$tool" --locked --maintainer '$(MAINTAINER)' $(DEB_FLAGS)

rpm: $(RPM_BUILD)
	tool=$$($(call tool,cargo-generate-rpm,$(CARGO_RPM))) && \
	"$$tool" --set-metadata 'vendor = "$(MAINTAINER)"' $(RPM_FLAGS)

install:
	@for p in $(PROGRAMS); do test -x "$(BUILD)/$$p" || \
	  { echo "install: $(BUILD)/$$p is missing: run \"make build\" or \"make pgo\" first" >&2; exit 1; }; done
	install -d "$(DESTDIR)$(libexec)" "$(DESTDIR)$(sbin)" "$(DESTDIR)$(unitdir)"
	for p in $(PROGRAMS); do \
	  install -m 0755 "$(BUILD)/$$p" "$(DESTDIR)$(libexec)/$$p" && \
	  ln -sfn "../libexec/postgate/$$p" "$(DESTDIR)$(sbin)/postgate-$$p" || exit 1; done
	for u in $(UNITS); do \
	  sed 's|^ExecStart=/usr/libexec/postgate/|ExecStart=$(libexec)/|' "$$u" > "$(DESTDIR)$(unitdir)/$${u##*/}" && \
	  chmod 0644 "$(DESTDIR)$(unitdir)/$${u##*/}" || exit 1; done
	install -D -m 0644 units/postgate.sysusers "$(DESTDIR)$(sysusers)"
	for d in $(DOCS); do install -D -m 0644 "$$d" "$(DESTDIR)$(docdir)/$$d" || exit 1; done
	for m in $(PAGES); do \
	  install -D -m 0644 "$$m" "$(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/}" || exit 1; done
ifeq ($(DESTDIR),)
	if [ "$$(id -u)" = 0 ] && command -v systemd-sysusers >/dev/null; then systemd-sysusers "$(sysusers)"; fi
endif
	install -d "$(DESTDIR)$(dir $(config))"
	test -e "$(DESTDIR)$(config)" || { \
	  install -m 0640 config.toml.example "$(DESTDIR)$(config)" && \
	  { test -n "$(DESTDIR)" || chgrp postgate "$(config)" || \
	    echo 'install: make the group "postgate", then: chgrp postgate $(config)' >&2; }; }
ifeq ($(DESTDIR),)
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
endif

# Keeps the configuration. Stops sockets first, or a request would start its service again.
uninstall:
ifeq ($(DESTDIR),)
	if [ -d /run/systemd/system ]; then \
	  systemctl stop 'postgate-*.socket'; systemctl stop 'postgate-*.service'; \
	  systemctl reset-failed 'postgate-*' || true; \
	  rm -f /etc/systemd/system/*.wants/postgate-*.socket; fi
endif
	for p in $(PROGRAMS); do rm -f "$(DESTDIR)$(sbin)/postgate-$$p" "$(DESTDIR)$(libexec)/$$p"; done
	for u in $(UNITS); do rm -f "$(DESTDIR)$(unitdir)/$${u##*/}"; done
	for m in $(PAGES); do rm -f "$(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/}"; done
	for d in $(DOCS); do rm -f "$(DESTDIR)$(docdir)/$$d"; done
	rm -f "$(DESTDIR)$(sysusers)"
	-for d in $(libexec) $(docdir)/docs/api $(docdir)/docs/monitoring $(docdir)/docs $(docdir)/examples $(docdir); do \
	  rmdir "$(DESTDIR)$$d"; done 2>/dev/null
ifeq ($(DESTDIR),)
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
endif

# Postgate: build, try, test, install. `make install` takes what `make build`
# left, so it needs no cargo and may be run by another user.

PREFIX   = /usr
DESTDIR  =
BUILD    = target/release
CARGO    = cargo

PROGRAMS = tcp-lookup socketmap policy
UNITS    = $(wildcard units/*.socket units/*.service)

libexec  = $(PREFIX)/libexec/postgate
sbin     = $(PREFIX)/sbin
unitdir  = $(PREFIX)/lib/systemd/system
sysusers = $(PREFIX)/lib/sysusers.d/postgate.conf
docdir   = $(PREFIX)/share/doc/postgate
config   = /etc/postgate/config.toml

.PHONY: build demo test check install uninstall

build:
	$(CARGO) build --release --locked

# KEEP=1 leaves everything running until Ctrl-C.
demo:
	$(CARGO) build --release --locked --bins --examples
	@$(CARGO) run --quiet --release --locked --example demo

test:
	$(CARGO) test --locked

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

install:
	@for p in $(PROGRAMS); do test -x "$(BUILD)/$$p" || \
	  { echo "install: $(BUILD)/$$p is missing: run \"make build\" first" >&2; exit 1; }; done
	install -d "$(DESTDIR)$(libexec)" "$(DESTDIR)$(sbin)" "$(DESTDIR)$(unitdir)"
	for p in $(PROGRAMS); do \
	  install -m 0755 "$(BUILD)/$$p" "$(DESTDIR)$(libexec)/$$p" && \
	  ln -sfn "../libexec/postgate/$$p" "$(DESTDIR)$(sbin)/postgate-$$p" || exit 1; done
	for u in $(UNITS); do \
	  sed 's|^ExecStart=/usr/libexec/postgate/|ExecStart=$(libexec)/|' "$$u" > "$(DESTDIR)$(unitdir)/$${u##*/}" && \
	  chmod 0644 "$(DESTDIR)$(unitdir)/$${u##*/}" || exit 1; done
	install -D -m 0644 units/postgate.sysusers "$(DESTDIR)$(sysusers)"
	install -D -m 0644 config.toml.example "$(DESTDIR)$(docdir)/config.toml.example"
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

# The configuration stays.
uninstall:
	for p in $(PROGRAMS); do rm -f "$(DESTDIR)$(sbin)/postgate-$$p" "$(DESTDIR)$(libexec)/$$p"; done
	for u in $(UNITS); do rm -f "$(DESTDIR)$(unitdir)/$${u##*/}"; done
	rm -f "$(DESTDIR)$(sysusers)" "$(DESTDIR)$(docdir)/config.toml.example"
	-rmdir "$(DESTDIR)$(libexec)" "$(DESTDIR)$(docdir)" 2>/dev/null

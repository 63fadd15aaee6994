#!/bin/sh
# After parkwarden's files are gone. Recordings stay until Debian's `purge`; RPM knows none, and leaves them.
set -e
if [ "$1" = purge ]; then
    rm -rf /var/lib/parkwarden
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi

#!/bin/sh
# Before parkwarden's files go. Debian calls it with `remove` (or `upgrade`), RPM with how many versions will be left.
set -e
case "$1" in
remove | 0)
    if [ -d /run/systemd/system ]; then
        systemctl disable --now parkwarden.service
    fi
    ;;
esac

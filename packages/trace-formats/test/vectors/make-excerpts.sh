#!/bin/sh
# Cuts the excerpts from the whole recordings. Usage: make-excerpts.sh DIRECTORY_OF_RECORDINGS
set -eu
cd "$(dirname "$0")"
zcat "$1/strict61.ftrace.txt.gz" | head -n 300 > strict61-head.ftrace.txt
zcat "$1/strict61.qemu-vtd.log.gz" | head -n 655 > strict61-head.qemu-vtd.log
sort -u "$1/trace-events-q7.txt" "$1/trace-events-q11.txt" > qemu-vtd-events.txt

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// prepare makes of a kernel and an unpacked archive what programs expect.
func prepare() error {
	for _, directory := range []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/var", "/root", "/etc"} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return err
		}
	}
	for _, what := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		// Some kernels have mounted /dev already.
		if err := mount(what[0], what[1]); err != nil && !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
	os.Setenv("HOME", "/root")
	os.Setenv("PATH", "/bin")
	if err := os.WriteFile("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		return err
	}
	// Only emergencies go to the console, which has our lines.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0o644); err != nil {
		return err
	}
	return loopback()
}

func mount(kind, place string) error {
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(kind, place, kind, 0, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", place, err)
	}
	return nil
}

// mountKind mounts a file system while parkwarden's other steps have had to do without.
func mountKind(step step, result *outcome) error {
	return mount(step.Arguments[0], step.Arguments[1])
}

// loopback switches the interface lo on.
func loopback() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(socket)
	// struct ifreq: the name, then the flags.
	request := struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return fmt.Errorf("switching lo on: %w", errno)
	}
	return nil
}

// system tells what machine this is.
func system(_ step, result *outcome) error {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	result.Found = map[string]any{
		"release":   read("/proc/sys/kernel/osrelease"),
		"uptime":    strings.Fields(read("/proc/uptime"))[0],
		"arch":      runtime.GOARCH,
		"page_size": os.Getpagesize(),
		"cmdline":   read("/proc/cmdline"),
		"lockdown":  read("/sys/kernel/security/lockdown"),
		"lsm":       read("/sys/kernel/security/lsm"),
	}
	return nil
}

// messages are the kernel's, all of them.
func messages(_ step, result *outcome) error {
	const all, size = 3, 10
	length, err := syscall.Klogctl(size, nil)
	if err != nil {
		return err
	}
	buffer := make([]byte, length)
	n, err := syscall.Klogctl(all, buffer)
	if err != nil {
		return err
	}
	result.Stdout = string(buffer[:n])
	return nil
}

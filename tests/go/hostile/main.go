// Command hostile lies about its own goroutines: it overwrites what an observer reads from its memory, in the way its
// argument names, and prints {"ready":true}. It ends on the line "exit".
//
// It needs Go 1.22 or earlier: later ones do not let a program refer to runtime.allgs.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"unsafe"
)

//go:linkname allgs runtime.allgs
var allgs []unsafe.Pointer

// g is the beginning of Go 1.22's runtime.g.
type g struct {
	stackLo, stackHi uintptr
	_                [5]uintptr
	schedSP, schedPC uintptr
	_                [9]uintptr
	atomicstatus     uint32
}

// waiting is runtime._Gwaiting: whoever waits does not notice what is written here until it is woken, which is never.
const waiting = 4

// neverThere returns memory whose pages are to be brought by a userfaultfd(2) that nobody reads from.
func neverThere(size uintptr) uintptr {
	must := func(value uintptr, _ uintptr, errno syscall.Errno) uintptr {
		if errno != 0 {
			fmt.Fprintln(os.Stderr, "hostile:", errno)
			os.Exit(1)
		}
		return value
	}
	const (
		sysUserfaultfd = 323
		uffdioAPI      = 0xc018aa3f
		uffdioRegister = 0xc020aa00
	)
	start := must(syscall.Syscall6(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uintptr(0), 0))
	fd := must(syscall.Syscall(sysUserfaultfd, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0, 0))
	api := [3]uint64{0xaa}
	must(syscall.Syscall(syscall.SYS_IOCTL, fd, uffdioAPI, uintptr(unsafe.Pointer(&api))))
	// Pages that are missing.
	register := [4]uint64{uint64(start), uint64(size), 1}
	must(syscall.Syscall(syscall.SYS_IOCTL, fd, uffdioRegister, uintptr(unsafe.Pointer(&register))))
	return start
}

func main() {
	// The collector reads what is overwritten here.
	debug.SetGCPercent(-1)
	parked := make(chan int)
	for i := 0; i < 50; i++ {
		go func() { <-parked }()
	}
	for i := 0; i < 1000; i++ {
		// Let them park; whether all have does not matter here.
		select {
		case parked <- 0:
			go func() { <-parked }()
		default:
		}
	}
	header := (*[3]uintptr)(unsafe.Pointer(&allgs))
	switch os.Args[1] {
	case "length":
		header[1], header[2] = 1<<62, 1<<62
	case "cycle":
		list := make([]unsafe.Pointer, 200_000)
		for i := range list {
			list[i] = allgs[0]
		}
		allgs = list
	case "unmapped":
		list := make([]unsafe.Pointer, 100_000)
		copy(list, allgs)
		for i := len(allgs); i < len(list); i++ {
			*(*uintptr)(unsafe.Pointer(&list[i])) = 0x6666_0000_0000 + uintptr(i)*8
		}
		allgs = list
	case "null":
		header[0] = 0
	case "stacks":
		for _, p := range allgs[1:] {
			other := (*g)(p)
			if other.atomicstatus == waiting {
				other.schedSP = other.stackLo
				other.schedPC++
			}
		}
	case "bounds":
		for _, p := range allgs[1:] {
			if other := (*g)(p); other.atomicstatus == waiting {
				other.stackLo, other.stackHi = 0, ^uintptr(0)
			}
		}
	case "hang":
		// Who reads there waits for a page that nobody ever brings.
		header[0], header[1], header[2] = neverThere(1<<20), 1<<17, 1<<17
	default:
		fmt.Fprintln(os.Stderr, "hostile: no such lie:", os.Args[1])
		os.Exit(2)
	}
	os.Stdout.WriteString("{\"ready\":true}\n")
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() && input.Text() != "exit" {
	}
	os.Exit(0)
}

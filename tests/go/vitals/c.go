//go:build cgo

package main

// #include <unistd.h>
// static void wait_for_ever(void) { for (;;) pause(); }
import "C"

func init() {
	faults["c"] = func(n int) {
		for i := 0; i < n; i++ {
			go callC()
		}
	}
}

func callC() { C.wait_for_ever() }

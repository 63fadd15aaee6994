//go:build go1.24

package main

import "runtime"

func init() {
	works["clean"] = func() {
		for i := 0; i < 20; i++ {
			runtime.AddCleanup(new([64]byte), func(int) { cleaned++ }, i)
		}
	}
}

var cleaned int

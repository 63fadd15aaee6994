package main

import (
	"io"
	"net/http"
	"os"
	"runtime"
)

type chanSignal = os.Signal

// works are done on command.
var works = map[string]func(){
	// Objects of many sizes from several places, some of them dropped.
	"allocate": func() {
		for i := 0; i < 2000; i++ {
			held = append(held, small(), medium())
			large()
		}
		held = held[: len(held)/2 : len(held)/2]
	},
	"finalize": func() {
		for i := 0; i < 30; i++ {
			runtime.SetFinalizer(new([48]byte), func(*[48]byte) { finalized++ })
		}
	},
	// Ones that only newer versions have, or nothing.
	"clean": func() {},
	"little": func() {
		for i := range littles {
			littles[i] = new([112]byte)
		}
	},
}

var finalized int

var littles [3]*[112]byte

var held [][]byte

//go:noinline
func small() []byte { return make([]byte, 100) }

//go:noinline
func medium() []byte { return make([]byte, 3000) }

var dropped []byte

//go:noinline
func large() { dropped = make([]byte, 40_000) }

func drain(response *http.Response) {
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
}

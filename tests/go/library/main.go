// Library waits inside the standard library in all the ways it can: each entry of waits is named as what is known of such waits
// is, and is made again and again, so that they grow. It prints the names, and ends when its input does. Its argument is an empty
// folder.
package main

import (
	"encoding/json"
	"io"
	"os"
	"sort"
	"time"
)

// Each makes a goroutine, or more, that waits so, and returns. One that does nothing is made by another.
var waits = map[string]func(){}

// Each waits so itself, and holds a thread: there are few.
var threads = map[string]func(){}

const (
	pause      = 200 * time.Millisecond
	threadsMax = 3
)

func main() {
	names := []string{}
	for name, make := range waits {
		names = append(names, name)
		go grow(make)
	}
	for name, make := range threads {
		names = append(names, name)
		for i := 0; i < threadsMax; i++ {
			go make()
		}
	}
	sort.Strings(names)
	if err := json.NewEncoder(os.Stdout).Encode(names); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func grow(make func()) {
	for {
		make()
		time.Sleep(pause)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

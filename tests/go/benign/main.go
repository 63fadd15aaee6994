// Benign is a program whose goroutines wait in all the ways that are no leak: what they wait for can still happen. Every
// one of them is reached from something that lives, in a way that is easy to miss from outside.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// classes are the ways to wait, by name; a class starts its goroutines and returns.
var classes = map[string]func(){}

func class(name string, start func()) { classes[name] = start }

// hold keeps a value in a goroutine that sleeps, and uses it afterwards.
func hold(use func()) {
	go func() {
		time.Sleep(time.Hour)
		use()
	}()
}

func main() {
	// Whoever is only kept from being woken by a garbage collection is not kept by luck.
	debug.SetGCPercent(-1)
	names := os.Args[1:]
	if len(names) == 0 {
		for name := range classes {
			names = append(names, name)
		}
	}
	var started sync.WaitGroup
	for _, name := range names {
		start, known := classes[name]
		if !known {
			fmt.Fprintln(os.Stderr, "no such class:", name)
			os.Exit(2)
		}
		started.Add(1)
		// Nothing of what a class holds stays on this stack.
		go func() {
			defer started.Done()
			start()
		}()
	}
	started.Wait()
	settle()
	fmt.Printf("{\"ready\":true,\"classes\":%d,\"goroutines\":%d}\n", len(names), runtime.NumGoroutine())
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch input.Text() {
		case "gc":
			runtime.GC()
			fmt.Println("{\"done\":true}")
		case "exit":
			return
		}
	}
}

// settle waits until about as many goroutines exist for a while: some classes start and end some all the time.
func settle() {
	for same, last := 0, -1; same < 20; time.Sleep(5 * time.Millisecond) {
		if now := runtime.NumGoroutine(); now <= last+2 && last <= now+2 {
			same++
		} else {
			same, last = 0, now
		}
	}
}

// Command stall holds goroutines that are stuck and a heap of pointers, and tells how long its ticker was kept waiting:
// what being looked at costs a program.
//
// It prints {"goroutines":N}; "reset" forgets the longest wait, "stall" answers {"longest":NANOSECONDS} since then, "profile
// NAME DEBUG" writes a profile of its own to nowhere and answers {"nanoseconds":T,"bytes":B}, and "exit" ends it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

type node struct {
	left, right *node
	value       [6]int
}

func tree(bytes int) *node {
	var root *node
	for ; bytes > 0; bytes -= 64 {
		root = &node{left: root}
	}
	return root
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

var kept []*node

func main() {
	heap := flag.Int("heap", 0, "MiB of objects that hold pointers")
	n := flag.Int("n", 0, "goroutines that wait for nobody")
	flag.Parse()

	// Many short lists: one long one would have the collector follow it alone.
	for i := 0; i < *heap*16; i++ {
		kept = append(kept, tree(1<<16))
	}
	for i := 0; i < *n; i++ {
		go func() { make(chan int) <- 1 }()
	}
	for runtime.NumGoroutine() < *n+1 {
		runtime.Gosched()
	}
	runtime.GC()
	// What is measured is the look, not a collection that happens to run beside it.
	debug.SetGCPercent(-1)

	var longest atomic.Int64
	go func() {
		last := time.Now()
		for {
			time.Sleep(50 * time.Microsecond)
			now := time.Now()
			if gap := int64(now.Sub(last)); gap > longest.Load() {
				longest.Store(gap)
			}
			last = now
		}
	}()

	input := bufio.NewScanner(os.Stdin)
	fmt.Printf("{\"goroutines\":%d}\n", runtime.NumGoroutine())
	for input.Scan() {
		words := strings.Fields(input.Text())
		switch words[0] {
		case "reset":
			longest.Store(0)
			fmt.Println(`{"longest":0}`)
		case "stall":
			fmt.Printf("{\"longest\":%d}\n", longest.Load())
		case "profile":
			level, _ := strconv.Atoi(words[2])
			var written counter
			start := time.Now()
			profile := pprof.Lookup(words[1])
			if profile == nil {
				fmt.Printf("{\"nanoseconds\":0,\"bytes\":0}\n")
				continue
			}
			if err := profile.WriteTo(&written, level); err != nil {
				panic(err)
			}
			fmt.Printf("{\"nanoseconds\":%d,\"bytes\":%d}\n", time.Since(start), written)
		case "exit":
			runtime.KeepAlive(kept)
			return
		}
	}
}

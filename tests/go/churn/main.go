// Command churn creates and ends an exact number of goroutines, so that an observer's totals can be compared with it.
//
// It prints {"ready":true}, and for every line "go" runs -n goroutines and prints
// {"created":N,"exited":N,"num_goroutine":M}. Between the two lines it executes exactly N go statements, and every one of
// those goroutines has ended when it answers. It ends on the line "exit".
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
)

func main() {
	count := flag.Int("n", 100000, "goroutines to create and end for each go")
	alive := flag.Int("alive", 64, "how many of them may be alive at once")
	flag.Parse()
	if *count < 0 || *alive < 1 {
		fmt.Fprintln(os.Stderr, "churn: -n must not be negative, -alive must be positive")
		os.Exit(2)
	}

	// The first collections start the runtime's own workers, which would be created goroutines too.
	runtime.GC()
	runtime.GC()

	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		switch input.Text() {
		case "go":
			base := runtime.NumGoroutine()
			created := churn(*count, *alive)
			// A goroutine is still counted while it returns: wait until the last one has been put away.
			for runtime.NumGoroutine() > base {
				runtime.Gosched()
			}
			fmt.Printf("{\"created\":%d,\"exited\":%d,\"num_goroutine\":%d}\n", created, created, runtime.NumGoroutine())
		case "exit":
			return
		}
	}
}

// churn runs batches of goroutines. In each batch every other goroutine parks on a channel until all of the batch have
// started, and the rest run through.
func churn(count, alive int) int {
	created := 0
	for created < count {
		size := alive
		if count-created < size {
			size = count - created
		}
		gate := make(chan struct{})
		var done sync.WaitGroup
		done.Add(size)
		for i := 0; i < size; i++ {
			if i%2 == 0 {
				go func() {
					<-gate
					done.Done()
				}()
			} else {
				go done.Done()
			}
			created++
		}
		// Let some of them reach the gate before it opens.
		runtime.Gosched()
		close(gate)
		done.Wait()
	}
	return created
}

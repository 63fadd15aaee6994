// Command spin passes values over unbuffered channels and starts short goroutines as fast as it can: the worst case for
// the cost of being watched.
//
// It prints {"ready":true}, answers "stats" with {"iterations":N,"spawned":M}, and ends on "exit".
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
)

func main() {
	pairs := flag.Int("pairs", 1, "pairs of goroutines that play ping-pong")
	spawners := flag.Int("spawners", 1, "goroutines that start goroutines")
	flag.Parse()

	var iterations, spawned atomic.Int64
	for i := 0; i < *pairs; i++ {
		ping, pong := make(chan int), make(chan int)
		go func() {
			for value := range ping {
				pong <- value
			}
		}()
		go func() {
			for {
				ping <- 1
				<-pong
				iterations.Add(1)
			}
		}()
	}
	for i := 0; i < *spawners; i++ {
		go func() {
			done := make(chan struct{})
			for {
				go func() { done <- struct{}{} }()
				<-done
				spawned.Add(1)
			}
		}()
	}

	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		switch input.Text() {
		case "stats":
			fmt.Printf("{\"iterations\":%d,\"spawned\":%d}\n", iterations.Load(), spawned.Load())
		case "exit":
			return
		}
	}
}

// Command swing does nothing or as much as it can, as it is told: values over unbuffered channels and short goroutines,
// each a few parks.
//
// It prints {"ready":true}. "busy" and "idle" switch, "job N" sends N values to and fro as a job that runs now and then would, and all print {"parks":N,"spawned":N,"num_goroutine":N}: about how many
// goroutines parked and were started so far. It ends on "exit".
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

var parks, spawned atomic.Int64

func main() {
	pairs := flag.Int("pairs", 2, "pairs of goroutines that play ping-pong")
	spawners := flag.Int("spawners", 1, "goroutines that start goroutines")
	parked := flag.Int("parked", 100, "goroutines that are parked all the time")
	flag.Parse()

	forever := make(chan struct{})
	for i := 0; i < *parked; i++ {
		go func() { <-forever }()
	}
	var stop chan struct{}
	var running sync.WaitGroup
	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		command, number, _ := strings.Cut(input.Text(), " ")
		switch command {
		case "job":
			values, err := strconv.Atoi(number)
			if err != nil {
				panic(err)
			}
			job(values)
		case "busy":
			if stop == nil {
				stop = make(chan struct{})
				start(&running, stop, *pairs, *spawners)
			}
		case "idle":
			if stop != nil {
				close(stop)
				running.Wait()
				stop = nil
			}
		case "exit":
			return
		}
		// Those that have just ended may still be counted for a moment.
		for stop == nil && runtime.NumGoroutine() > *parked+1 {
			runtime.Gosched()
		}
		fmt.Printf("{\"parks\":%d,\"spawned\":%d,\"num_goroutine\":%d}\n", parks.Load(), spawned.Load(), runtime.NumGoroutine())
	}
}

func job(values int) {
	ping, pong := make(chan int), make(chan int)
	go func() {
		defer close(pong)
		for value := range ping {
			pong <- value
		}
	}()
	for i := 0; i < values; i++ {
		ping <- i
		<-pong
		parks.Add(2)
	}
	close(ping)
	<-pong
}

func start(running *sync.WaitGroup, stop chan struct{}, pairs, spawners int) {
	for i := 0; i < pairs; i++ {
		ping, pong := make(chan int), make(chan int)
		running.Add(2)
		go func() {
			defer running.Done()
			for value := range ping {
				pong <- value
			}
		}()
		go func() {
			defer running.Done()
			defer close(ping)
			for {
				select {
				case <-stop:
					return
				default:
				}
				ping <- 1
				<-pong
				parks.Add(2)
			}
		}()
	}
	for i := 0; i < spawners; i++ {
		running.Add(1)
		go func() {
			defer running.Done()
			done := make(chan struct{})
			for {
				select {
				case <-stop:
					return
				default:
				}
				go func() { done <- struct{}{} }()
				<-done
				parks.Add(1)
				spawned.Add(1)
			}
		}()
	}
}

// Command profiled is built with the profile beside it, default.pgo, in which the runtime's ways of parking and starting
// goroutines are hot: the compiler inlines them, and there is no one place any more where a probe would see them all.
//
// It prints {"ready":true}, parks five goroutines for "park", and ends on "exit". With -profile FILE it writes such a
// profile of Go's newest version instead: build with -pgo=off -trimpath, run, and copy FILE.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

func main() {
	profile := flag.String("profile", "", "where to write a profile")
	flag.Parse()
	if *profile != "" {
		write(*profile)
		return
	}

	never := make(chan struct{})
	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		switch input.Text() {
		case "park":
			for i := 0; i < 5; i++ {
				go func() { <-never }()
			}
			for !allWait(5) {
				runtime.Gosched()
			}
			fmt.Println(`{"ready":true}`)
		case "exit":
			return
		}
	}
}

// allWait tells whether so many goroutines wait to receive.
func allWait(count int) bool {
	stacks := make([]byte, 1<<16)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "[chan receive") >= count
}

func write(path string) {
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		panic(err)
	}
	end := time.Now().Add(4 * time.Second)
	ping, pong := make(chan int), make(chan int)
	go func() {
		for value := range ping {
			pong <- value
		}
	}()
	for time.Now().Before(end) {
		for i := 0; i < 1000; i++ {
			ping <- i
			<-pong
			go func() { pong <- 0 }()
			<-pong
		}
	}
	pprof.StopCPUProfile()
	if err := file.Close(); err != nil {
		panic(err)
	}
}

// Growing has goroutines whose stacks are moved all the time, as they grow or, with -shrink, as the collector makes them smaller.
// What each of them will send on lies in an object of its stack, to which only a variable of its outermost function leads. All of
// them get on.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

const workers = 8

//go:noinline
func same(p *[8]chan int) *[8]chan int { return p }

//go:noinline
func grow(depth int) byte {
	var frame [512]byte
	frame[depth%512] = byte(depth)
	if depth > 0 {
		frame[0] += grow(depth - 1)
	}
	return frame[depth%512] + frame[0]
}

//go:noinline
func doze() { time.Sleep(5 * time.Millisecond) }

//go:noinline
func worker(c chan int, shrinks bool) {
	var held [8]chan int
	held[3] = c
	p := same(&held)
	grow(60)
	if shrinks {
		doze()
	}
	p[3] <- 1
}

func main() {
	shrinks := flag.Bool("shrink", false, "have the collector move the stacks")
	flag.Parse()
	for i := 0; i < workers; i++ {
		go func() {
			for {
				c := make(chan int)
				go worker(c, *shrinks)
				<-c
			}
		}()
	}
	if *shrinks {
		go func() {
			for {
				runtime.GC()
			}
		}()
	}
	fmt.Println(`{"ready":true}`)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// Command incident is a service that behaves until it is told to leak, and then leaks until memory runs out.
//
// It prints {"ready":true}. On the line "leak" it begins to leak -rate goroutines a second, each of which holds -hold
// bytes, and prints {"unix_ns":N,"line":L}: when it began, and the line of the leaking go statement. From then on it
// prints {"leaked":N,"unix_ns":T} twice a second, until it is killed.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

type hub struct {
	events chan int
}

// subscribe leaks: nobody sends to the hub, and nobody closes it.
func (h *hub) subscribe(hold int) {
	memory := make([]byte, hold)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	go func() { // the leak
		<-h.events
		runtime.KeepAlive(memory)
	}()
}

// leakLine is where the go statement of subscribe is.
const leakLine = 27

// work is a pool as it should be: workers that wait for jobs, and get some.
func work() {
	jobs := make(chan chan int)
	for i := 0; i < 8; i++ {
		go func() {
			for answer := range jobs {
				answer <- 1
			}
		}()
	}
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			answer := make(chan int, 1)
			jobs <- answer
			<-answer
		}
	}()
}

func main() {
	rate := flag.Int("rate", 100, "goroutines to leak a second")
	hold := flag.Int("hold", 64<<10, "bytes that each holds")
	flag.Parse()
	work()
	input := bufio.NewScanner(os.Stdin)
	fmt.Println(`{"ready":true}`)
	for input.Scan() {
		if input.Text() == "leak" {
			go leak(*rate, *hold)
		}
	}
}

func leak(rate, hold int) {
	h := &hub{events: make(chan int)}
	began := time.Now()
	fmt.Printf("{\"unix_ns\":%d,\"line\":%d}\n", began.UnixNano(), leakLine)
	leaked, said := 0, began
	for range time.Tick(10 * time.Millisecond) {
		now := time.Now()
		// As many as the time that has passed asks for, so that a late tick does not slow it down.
		for due := int(now.Sub(began).Seconds() * float64(rate)); leaked < due; leaked++ {
			h.subscribe(hold)
		}
		if now.Sub(said) >= 500*time.Millisecond {
			said = now
			fmt.Printf("{\"leaked\":%d,\"unix_ns\":%d}\n", leaked, now.UnixNano())
		}
	}
}

// Command quotes is a service that leaks as many do: for each request it asks two suppliers, takes the answer that comes
// first and goes away, and the other waits for ever to give its own. It is its own customer.
//
// It needs no input, and uses memory until it is killed once it gets the signal USR1. When the first goroutine has leaked it prints {"created_by":{"function":F,"file":F,"line":L}}, the go
// statement that its own goroutine dump names.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// every is the time between two requests.
const every = 20 * time.Millisecond

type place struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

func quote(article int) int {
	quotes := make(chan int)
	for supplier := 1; supplier <= 2; supplier++ {
		go ask(supplier, article, quotes)
	}
	return <-quotes
}

func ask(supplier, article int, quotes chan<- int) {
	quotes <- supplier * article
}

var leaked = regexp.MustCompile(`\[chan send\]:\n(?:.+\n)*created by (\S+?)(?: in goroutine \d+)?\n\t(.+):(\d+) \+0x`)

// leak is where the goroutines were made that wait to send, once there is one.
func leak() *place {
	dump := make([]byte, 1<<20)
	found := leaked.FindSubmatch(dump[:runtime.Stack(dump, true)])
	if found == nil {
		return nil
	}
	line, _ := strconv.Atoi(string(found[3]))
	return &place{string(found[1]), string(found[2]), line}
}

// starve has no end where memory has one.
func starve() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	<-signals
	var memory [][]byte
	for len(memory) < 1<<10 {
		piece := make([]byte, 1<<20)
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		memory = append(memory, piece)
	}
	fmt.Fprintln(os.Stderr, "quotes: nothing limits memory:", len(memory), "MiB")
	os.Exit(1)
}

func main() {
	go starve()
	said := false
	for article := range time.Tick(every) {
		quote(article.Nanosecond())
		if said {
			continue
		}
		if at := leak(); at != nil {
			line, err := json.Marshal(map[string]*place{"created_by": at})
			if err != nil {
				fmt.Fprintln(os.Stderr, "quotes:", err)
				os.Exit(1)
			}
			fmt.Println(string(line))
			said = true
		}
	}
}

// Command quotes is a service that leaks as many do: for each request it asks two suppliers, takes the answer that comes
// first and goes away, and the other waits for ever to give its own. It is its own customer.
//
// It needs no input. When the first goroutine has leaked it prints {"created_by":{"function":F,"file":F,"line":L}}, the go
// statement that its own goroutine dump names.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
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

var leaked = regexp.MustCompile(`\[chan send\]:\n(?:.+\n)*created by (\S+) in goroutine \d+\n\t(.+):(\d+) \+0x`)

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

func main() {
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

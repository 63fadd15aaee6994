// Plug opens a plugin, one of whose goroutines waits on a channel that only a variable of the plugin leads to, and another on one
// that nobody has. On "stop" it has the plugin close the first.
package main

import (
	"bufio"
	"fmt"
	"os"
	"plugin"
	"runtime"
)

func main() {
	opened, err := plugin.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	lookup := func(name string) func() {
		symbol, err := opened.Lookup(name)
		if err != nil {
			panic(err)
		}
		return symbol.(func())
	}
	started := make(chan bool)
	go func() {
		lookup("Start")()
		close(started)
	}()
	<-started
	runtime.GC()
	fmt.Println("{\"ready\":true}")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch input.Text() {
		case "stop":
			lookup("Stop")()
			fmt.Println("{\"done\":true}")
		case "exit":
			return
		}
	}
}

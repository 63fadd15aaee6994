// Command leaks parks goroutines in every way a Go program commonly leaks them, and says of itself which goroutine was
// created where, is blocked where and why. What an observer outside the process reports is compared with that.
//
// It prints one line of JSON when every goroutine has parked, and ends on the line "exit" or the end of its input. With
// -wait it first prints {"ready":true} and starts on the line "go", so that an observer can attach before.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	count := flag.Int("n", 3, "goroutines of each class")
	threads := flag.Int("syscalls", 2, "goroutines in a blocking system call; each holds a thread")
	wait := flag.Bool("wait", false, `print {"ready":true}, and start on the line "go"`)
	only := flag.String("only", "", "classes to start, separated by commas; default all")
	flag.Parse()

	input := bufio.NewScanner(os.Stdin)
	if *wait {
		fmt.Println(`{"ready":true}`)
		if !await(input, "go") {
			return
		}
	}
	expected := map[string]int{}
	for _, leak := range leaks {
		if !selected(*only, leak.class) {
			continue
		}
		n := *count
		if leak.class == "syscall" {
			n = *threads
		}
		leak.start(n)
		expected[leak.class] = n
	}
	if len(expected) == 0 {
		fmt.Fprintf(os.Stderr, "leaks: no such class: %s\n", *only)
		os.Exit(2)
	}
	said, err := settle(expected, time.Now().Add(30*time.Second))
	if err != nil {
		fmt.Fprintln(os.Stderr, "leaks:", err)
		os.Exit(1)
	}
	line, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
	await(input, "exit")
}

// await reads lines until it is told what it waits for, or the input ends.
func await(input *bufio.Scanner, command string) bool {
	for input.Scan() {
		if input.Text() == command {
			return true
		}
	}
	return false
}

func selected(only, class string) bool {
	if only == "" {
		return true
	}
	for _, name := range strings.Split(only, ",") {
		if name == class {
			return true
		}
	}
	return false
}

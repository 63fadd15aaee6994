// Command exec becomes another program when it is told to: the line "exec PATH ARGS..." on its input replaces it, under
// the same process id. It prints {"ready":true} first.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	fmt.Println(`{"ready":true}`)
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		words := strings.Fields(input.Text())
		if len(words) > 1 && words[0] == "exec" {
			err := syscall.Exec(words[1], words[1:], os.Environ())
			fmt.Fprintln(os.Stderr, "exec:", err)
			os.Exit(1)
		}
	}
}

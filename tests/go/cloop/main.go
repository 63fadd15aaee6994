// Cloop is a program whose C library has loops of its own: each waits for events, as it should.
package main

// #include <poll.h>
// static void loop(void) { for (;;) poll(0, 0, 60000); }
import "C"

import "fmt"

func main() {
	for i := 0; i < 3; i++ {
		go run()
	}
	fmt.Println("{}")
	fmt.Scanln()
}

func run() { C.loop() }

// Command demo is a small shop's HTTP service with the goroutine leaks such services commonly have, among workers, accept
// loops and idle connections that are as they should be. With -load URL it is the customers.
//
// The service prints {"ready":true,"url":URL}. Both end on the line "exit" or when their standard input ends, so that
// neither outlives whoever started it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	url := flag.String("load", "", "put load on the service at this URL instead of serving")
	rate := flag.Int("rate", 5, "with -load: requests of each kind per second")
	limit := flag.Duration("for", time.Minute, "with -load: how long")
	flag.Parse()
	log.SetPrefix("demo: ")
	log.SetFlags(0)

	if *url != "" {
		go func() {
			awaitExit()
			os.Exit(0)
		}()
		load(*url, *rate, *limit)
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	shop := newShop()
	go func() { log.Fatal(http.Serve(listener, shop.routes())) }()
	fmt.Printf("{\"ready\":true,\"url\":\"http://%s\"}\n", listener.Addr())
	awaitExit()
}

func awaitExit() {
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		if input.Text() == "exit" {
			return
		}
	}
}

package sidestep_test

const childEnv = "SIDESTEP_TEST_CHILD"

var children = map[string]func(socket string){}
